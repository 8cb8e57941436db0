"""Facts about `config.json`: format, classes and files of code beside it, and which task head it names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slimvox.families.base import HEAD_NAMES

MODEL_TYPE = "slimvox"
FORMAT_VERSION = 1
WHISPER_MODEL_TYPE = "slimvox_whisper"
"""`model_type` of Whisper with a pruned encoder and its decoder; an encoder alone is of `MODEL_TYPE`."""
ENCODER_CODE = ("configuration_slimvox.py", "modeling_slimvox.py")
WHISPER_CODE = "whisper_slimvox.py"
CODE_FILES = (*ENCODER_CODE, WHISPER_CODE)
"""The code that travels with a directory, see `slimvox.hf.travelling_code`; the last with Whisper only."""
WHISPER_FILES = (
    "preprocessor_config.json",
    "processor_config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "normalizer.json",
    "added_tokens.json",
    "special_tokens_map.json",
)
"""Files beside Whisper's weights that are copied to a pruned Whisper."""
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
WHISPER_AUTO_MAP = {
    "AutoConfig": "whisper_slimvox.SlimvoxWhisperConfig",
    "AutoModelForSpeechSeq2Seq": "whisper_slimvox.SlimvoxWhisperForConditionalGeneration",
}
"""Auto class to the class in the code, for Whisper."""


def head_name(config: Mapping[str, Any]) -> str | None:
    """The one of `HEAD_NAMES` that a `config.json` names; None if its architecture has none of these heads."""
    architectures = config.get("architectures")
    architecture = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    return next((name for name in HEAD_NAMES if architecture.endswith(name)), None)
