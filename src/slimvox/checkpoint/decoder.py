"""Whisper's decoder, and everything else that a pruned Whisper takes over from the dense one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from slimvox.checkpoint.json_fields import read_json
from slimvox.checkpoint.tensors import read_tensors, split_checkpoint
from slimvox.checkpoint.transformers_reader import split_transformers
from slimvox.encoder.model import ENCODER_MODULES
from slimvox.families import find_family
from slimvox.hf.directory_format import WHISPER_FILES, WHISPER_MODEL_TYPE

ENCODER_PREFIX = "model.encoder."
"""Prefix of the encoder's tensors in a Whisper with decoder."""
SPEECH_TO_TEXT = "ForConditionalGeneration"
"""Ending of the names of the architectures that have a decoder."""
OWN_FIELDS = {
    "model_type",
    "architectures",
    "auto_map",
    "anatomy",
    "dense_anatomy",
    "format_version",
    "transformers_version",
    "dtype",
    "torch_dtype",
    "_name_or_path",
    "parameters",
    "teacher",
    "run",
}
"""Fields of `config.json` that do not concern the decoder."""


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """A decoder as stored, with the files that `generate` and the processor need."""

    tensors: Mapping[str, Tensor]
    """Everything but the encoder, by its name in `WhisperForConditionalGeneration`."""
    config: Mapping[str, Any]
    """Fields of `WhisperConfig`."""
    files: Mapping[str, bytes]
    """Contents of those of `WHISPER_FILES` that exist."""


def has_decoder(directory: Path) -> bool:
    """True if a directory holds a Whisper with its decoder, dense or pruned."""
    file = directory / "config.json"
    config = read_json(file) if file.is_file() else {}
    named = config.get("architectures") or [""]
    kinds = ("whisper", WHISPER_MODEL_TYPE)
    return config.get("model_type") in kinds and str(named[0]).endswith(SPEECH_TO_TEXT)


def read_decoder(directory: Path) -> Decoder:
    """Read the decoder of a Whisper for which `has_decoder` is true.

    Raises:
        SlimvoxError: if the weights are missing or damaged.
    """
    config = read_json(directory / "config.json")
    tensors = read_tensors(directory)
    if config["model_type"] == WHISPER_MODEL_TYPE:
        split = split_checkpoint(tensors, directory, modules=ENCODER_MODULES, prefix=ENCODER_PREFIX)
    else:
        split = split_transformers(tensors, find_family("whisper", directory), directory)
    rest = dict(split.head)
    if config.get("tie_word_embeddings", True):
        rest.pop("proj_out.weight", None)
    paths = [directory / name for name in WHISPER_FILES]
    return Decoder(
        tensors=rest,
        config={name: value for name, value in config.items() if name not in OWN_FIELDS},
        files={path.name: path.read_bytes() for path in paths if path.is_file()},
    )
