"""What `config.json` says of the directory it lies in."""

from __future__ import annotations

MODEL_TYPE = "slimvox"
FORMAT_VERSION = 1
AUTO_MAP = {
    "AutoConfig": "modeling_slimvox.SlimvoxConfig",
    "AutoModel": "modeling_slimvox.SlimvoxModel",
    "AutoModelForCTC": "modeling_slimvox.SlimvoxForCTC",
    "AutoModelForAudioClassification": "modeling_slimvox.SlimvoxForSequenceClassification",
    "AutoModelForSequenceClassification": "modeling_slimvox.SlimvoxForSequenceClassification",
    "AutoModelForAudioFrameClassification": "modeling_slimvox.SlimvoxForAudioFrameClassification",
    "AutoModelForAudioXVector": "modeling_slimvox.SlimvoxForXVector",
}
"""Auto class to the class in the code that travels with a directory."""
