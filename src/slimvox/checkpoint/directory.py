"""The slimvox directory: configuration, weights, kept indices, a model card, and what `transformers` wants there."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from slimvox.anatomy import EncoderAnatomy
from slimvox.checkpoint.empty import empty_encoder
from slimvox.checkpoint.transformers_reader import load_exactly, read_json, read_tensors
from slimvox.encoder import SpeechEncoder
from slimvox.errors import SlimvoxError
from slimvox.files import write_atomically
from slimvox.integrations.transformers.directory_format import FORMAT_VERSION, MODEL_TYPE

logger = logging.getLogger("slimvox.checkpoint")
HEAD_PREFIX = f"{MODEL_TYPE}."
"""Of the encoder's tensors in a model with a head."""


def is_slimvox_directory(directory: Path) -> bool:
    """Whether a directory holds an encoder that slimvox wrote."""
    config = directory / "config.json"
    return config.is_file() and read_json(config).get("model_type") == MODEL_TYPE


def read_anatomies(directory: Path) -> tuple[EncoderAnatomy, EncoderAnatomy]:
    """What the encoder in a slimvox directory, and the one that it was pruned from, are made of.

    Raises:
        SlimvoxError: if `config.json` is missing, damaged or of a newer format.
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
    return anatomy, dense


def read_slimvox_directory(directory: Path) -> SpeechEncoder:
    """Read an encoder that `write_slimvox_directory`, or a model of `slimvox.integrations.transformers`, wrote.

    From a model with a head the encoder is taken, and the head is left aside.

    Raises:
        SlimvoxError: if files are missing, damaged or of a newer format.
    """
    anatomy, dense = read_anatomies(directory)
    encoder = empty_encoder(anatomy, dense)
    tensors = {name: tensor.float() for name, tensor in read_tensors(directory).items()}
    tensors = _without_head(tensors, directory)
    for name in encoder.absent_tensors:  # of earlier versions
        tensors.pop(name, None)
    load_exactly(encoder, tensors, directory)
    return encoder


def _without_head(tensors: dict[str, Tensor], directory: Path) -> dict[str, Tensor]:
    """The encoder's tensors under their plain names."""
    encoder = {
        name.removeprefix(HEAD_PREFIX): tensor
        for name, tensor in tensors.items()
        if name.startswith(HEAD_PREFIX)
    }
    if not encoder:
        return tensors
    aside = sorted({name.partition(".")[0] for name in tensors} - {MODEL_TYPE})
    logger.info("%s: only the encoder is taken; left aside: %s", directory, ", ".join(aside))
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
    from slimvox.integrations.transformers.companions import preprocessor_config
    from slimvox.integrations.transformers.configuration import SlimvoxConfig
    from slimvox.integrations.transformers.travelling_code import travelling_files

    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    config = SlimvoxConfig(
        anatomy=encoder.anatomy.to_dict(),
        dense_anatomy=encoder.dense_anatomy.to_dict(),
        architectures=["SlimvoxModel"],
        dtype="float32",
        parameters=encoder.parameter_count,
        **(details or {}),
    )
    preprocessor = preprocessor_config(encoder.anatomy)
    write_atomically(directory / "model.safetensors", save(tensors, metadata={"format": "pt"}))
    write_atomically(directory / "kept_indices.json", json.dumps(kept_indices).encode())
    write_atomically(directory / "preprocessor_config.json", json.dumps(preprocessor, indent=1).encode())
    write_atomically(directory / "README.md", model_card.encode())
    for name, source in travelling_files().items():
        write_atomically(directory / name, source.encode())
    write_atomically(directory / "config.json", config.to_json_string().encode())
