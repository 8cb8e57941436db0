"""Facts about `config.json`: format, classes and files of code beside it, and which task head it names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slimvox.families.base import HEAD_NAMES

MODEL_TYPE = "slimvox"
FORMAT_VERSION = 1
CODE_FILES = ("configuration_slimvox.py", "modeling_slimvox.py")
"""The code that travels with a directory, see `slimvox.hf.travelling_code`."""
AUTO_MAP = {
    "AutoConfig": "configuration_slimvox.SlimvoxConfig",
    "AutoModel": "modeling_slimvox.SlimvoxModel",
    "AutoModelForCTC": "modeling_slimvox.SlimvoxForCTC",
    "AutoModelForAudioClassification": "modeling_slimvox.SlimvoxForSequenceClassification",
    "AutoModelForSequenceClassification": "modeling_slimvox.SlimvoxForSequenceClassification",
    "AutoModelForAudioFrameClassification": "modeling_slimvox.SlimvoxForAudioFrameClassification",
    "AutoModelForAudioXVector": "modeling_slimvox.SlimvoxForXVector",
}
"""Auto class to the class in the code that travels with a directory."""


def head_name(config: Mapping[str, Any]) -> str | None:
    """One of `HEAD_NAMES`, from a `config.json`; None where its architecture has none of these heads."""
    architectures = config.get("architectures")
    architecture = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    return next((name for name in HEAD_NAMES if architecture.endswith(name)), None)
