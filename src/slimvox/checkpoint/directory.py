"""The slimvox directory: `config.json`, `model.safetensors`, `kept_indices.json` and a model card."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save

from slimvox.anatomy import EncoderAnatomy
from slimvox.checkpoint.transformers_reader import load_exactly, read_json, read_tensors
from slimvox.encoder import SpeechEncoder
from slimvox.errors import SlimvoxError

MODEL_TYPE = "slimvox"
FORMAT_VERSION = 1


def is_slimvox_directory(directory: Path) -> bool:
    """Whether a directory holds an encoder that slimvox wrote."""
    config = directory / "config.json"
    return config.is_file() and read_json(config).get("model_type") == MODEL_TYPE


def read_slimvox_directory(directory: Path) -> SpeechEncoder:
    """Read an encoder that `write_slimvox_directory` wrote.

    Raises:
        SlimvoxError: if files are missing, damaged or of a newer format.
    """
    config = read_json(directory / "config.json")
    version = config.get("format_version")
    if version != FORMAT_VERSION:
        raise SlimvoxError(
            f"{directory}: `format_version` must be {FORMAT_VERSION}, but is {version!r} instead;"
            " a newer slimvox may be needed to read it"
        )
    try:
        anatomy = EncoderAnatomy.from_dict(config["anatomy"])
        dense = EncoderAnatomy.from_dict(config["dense_anatomy"])
    except (KeyError, ValueError) as error:
        raise SlimvoxError(f"{directory}/config.json is damaged: {error}") from error
    encoder = SpeechEncoder(anatomy, dense)
    tensors = {name: tensor.float() for name, tensor in read_tensors(directory).items()}
    load_exactly(encoder, tensors, directory)
    return encoder


def write_slimvox_directory(
    encoder: SpeechEncoder,
    directory: Path,
    *,
    kept_indices: Mapping[str, Any],
    model_card: str,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write an encoder; `config.json`, which makes the directory loadable, comes last.

    Args:
        encoder: what to write, in float32, each tensor contiguous.
        directory: created if it is not there. Other files in it are left alone.
        kept_indices: which structures of the dense encoder survived, see `slimvox.kept_indices`.
        model_card: Markdown, written as README.md.
        details: more top-level fields for `config.json` (teacher, run).

    Raises:
        OSError: if the disk is full or the directory can't be written; a file is either whole or not there.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    config = {
        "model_type": MODEL_TYPE,
        "format_version": FORMAT_VERSION,
        "architectures": ["SpeechEncoder"],
        "parameters": encoder.parameter_count,
        **(details or {}),
        "anatomy": encoder.anatomy.to_dict(),
        "dense_anatomy": encoder.dense_anatomy.to_dict(),
    }
    write_atomically(directory / "model.safetensors", save(tensors, metadata={"format": "pt"}))
    write_atomically(directory / "kept_indices.json", json.dumps(kept_indices).encode())
    write_atomically(directory / "README.md", model_card.encode())
    write_atomically(directory / "config.json", json.dumps(config, indent=1).encode())


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is either the old one or the new one, whole, whenever the power goes."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
