"""The slimvox directory: configuration, weights, kept indices, a model card, and the files `transformers` needs."""

from __future__ import annotations

import json
import logging
import reprlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save
from torch import Tensor

from slimvox.checkpoint.decoder import ENCODER_PREFIX, has_decoder, read_decoder
from slimvox.checkpoint.empty import empty_encoder
from slimvox.checkpoint.json_fields import read_json
from slimvox.checkpoint.normalization import PREPROCESSOR_FILES
from slimvox.checkpoint.tensors import (
    Split,
    as_float32,
    load_exactly,
    mismatches,
    plain_name,
    read_tensors,
    remove_stale_weights,
    split_checkpoint,
)
from slimvox.encoder import SpeechEncoder
from slimvox.encoder.model import ENCODER_MODULES
from slimvox.hf.directory_format import FORMAT_VERSION, MODEL_TYPE, WHISPER_MODEL_TYPE
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.util.errors import SlimvoxError
from slimvox.util.files import write_atomically

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

logger = logging.getLogger("slimvox.checkpoint")
HEAD_PREFIX = f"{MODEL_TYPE}."
"""Prefix of the encoder's tensors in a model with a head."""
WEIGHTS = "model.safetensors"
MERGE_FIRST = (
    "merge adapters first, by `merge_and_unload()` in peft, and use the encoder before it was quantised"
)


def is_slimvox_directory(directory: Path) -> bool:
    """True if a directory holds an encoder written by slimvox."""
    config = directory / "config.json"
    return config.is_file() and read_json(config).get("model_type") in (MODEL_TYPE, WHISPER_MODEL_TYPE)


def read_anatomies(directory: Path) -> tuple[EncoderAnatomy, EncoderAnatomy]:
    """Read the anatomies of the encoder in a slimvox directory and of the dense encoder that it was pruned from.

    Raises:
        SlimvoxError: if `config.json` is missing, damaged or of a newer format.
    """
    file = directory / "config.json"
    config = read_json(file)
    version = config.get("format_version")
    if version != FORMAT_VERSION:
        raise SlimvoxError(
            f"{file}: `format_version` must be {FORMAT_VERSION}, but is {reprlib.repr(version)} instead;"
            " a newer slimvox may be needed to read it"
        )
    anatomy, dense = (_anatomy(config, name, file) for name in ("anatomy", "dense_anatomy"))
    if not _is_part_of(anatomy, dense):
        raise SlimvoxError(
            f"{file} is damaged: `anatomy` must be a part of `dense_anatomy`, but has other settings or larger sizes"
        )
    return anatomy, dense


def _anatomy(config: Mapping[str, Any], name: str, file: Path) -> EncoderAnatomy:
    if name not in config:
        raise SlimvoxError(f"{file} is damaged: the field `{name}` is missing")
    try:
        return EncoderAnatomy.from_dict(config[name])
    except ValueError as error:
        raise SlimvoxError(f"{file} is damaged, in `{name}`: {error}") from error


def _is_part_of(anatomy: EncoderAnatomy, dense: EncoderAnatomy) -> bool:
    """True if an encoder can be the result of pruning another one."""
    settings = replace(
        anatomy, convolutions=dense.convolutions, layers=dense.layers, position_taps=dense.position_taps
    )
    if settings != dense:
        return False
    if any(
        not set(anatomy.kept_taps(index)) <= set(dense.kept_taps(index))
        for index in range(dense.position_layers)
    ):
        return False
    if (len(anatomy.convolutions), len(anatomy.layers)) != (len(dense.convolutions), len(dense.layers)):
        return False
    pairs = zip(anatomy.convolutions, dense.convolutions, strict=True)
    if any(replace(a, channels=b.channels) != b or a.channels > b.channels for a, b in pairs):
        return False
    for layer, whole in zip(anatomy.layers, dense.layers, strict=True):
        heads = {head.index: head for head in whole.heads}
        if layer.attention > whole.attention or layer.feed_forward > whole.feed_forward:
            return False
        if layer.intermediate > whole.intermediate or any(head.index not in heads for head in layer.heads):
            return False
        if any(head.qk > heads[head.index].qk or head.vo > heads[head.index].vo for head in layer.heads):
            return False
    return True


def read_slimvox_directory(directory: Path) -> SpeechEncoder:
    """Read an encoder that `write_slimvox_directory`, or a model of `slimvox.hf`, wrote.

    For a model with a head, only the encoder is read, and the head is ignored.

    Raises:
        SlimvoxError: if files are missing, damaged or of a newer format.
    """
    anatomy, dense = read_anatomies(directory)
    split = split_slimvox(read_tensors(directory), directory)
    if split.prefix and split.head:
        logger.info("%s: only the encoder is used; ignored: %s", directory, ", ".join(split.head_modules))
    tensors = dict(split.encoder) if split.prefix else {**split.encoder, **split.head}
    encoder = empty_encoder(anatomy, dense)
    for name in encoder.absent_tensors:  # tensors that earlier versions stored
        tensors.pop(name, None)
    load_exactly(encoder, as_float32(tensors, directory), directory)
    return encoder


def split_slimvox(tensors: dict[str, Tensor], source: Path | str) -> Split:
    """Sort the tensors of a checkpoint of slimvox into the encoder's and all others.

    Raises:
        SlimvoxError: if there is not exactly one encoder.
    """
    return split_checkpoint(tensors, source, modules=ENCODER_MODULES, prefix=HEAD_PREFIX)


def write_slimvox_directory(
    encoder: SpeechEncoder,
    directory: Path,
    *,
    kept_indices: Mapping[str, Any] | None,
    model_card: str,
    details: Mapping[str, Any] | None = None,
    source: Path | None = None,
) -> None:
    """Write an encoder; `config.json`, which makes the directory loadable, comes last.

    Args:
        encoder: encoder to write.
        directory: created if it does not exist. Weight files of another model in it are removed; other files are not
            changed.
        kept_indices: kept structures of the dense encoder, see `slimvox.structures.kept_indices`;
            None where that is not known, and then a file of another encoder is removed.
        model_card: Markdown, written as README.md.
        details: more top-level fields for `config.json` (teacher, run).
        source: directory of the model that the encoder comes from. The decoder of a Whisper is taken along, with its
            tokenizer and settings, so that the directory is a whole Whisper again.

    Raises:
        SlimvoxError: if the decoder in `source` cannot be read, or the encoder's weights are not those of its anatomy,
            as with adapters or after quantisation.
        OSError: if the disk is full or the directory cannot be written; a file is either whole or not there.
    """
    from slimvox.hf.companions import code_files, preprocessor_config, whisper_preprocessor_config
    from slimvox.hf.configuration import SlimvoxConfig

    decoder = read_decoder(source) if source is not None and has_decoder(source) else None
    weights = checked_weights(encoder)
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    dtype = next(iter(tensors.values())).dtype
    fields = {
        "anatomy": encoder.anatomy.to_dict(),
        "dense_anatomy": encoder.dense_anatomy.to_dict(),
        "dtype": str(dtype).removeprefix("torch."),
        "parameters": encoder.parameter_count,
        **(details or {}),
    }
    config: PreTrainedConfig
    if decoder is None:
        config = SlimvoxConfig(architectures=["SlimvoxModel"], **fields)
        files = {
            "preprocessor_config.json": json.dumps(preprocessor_config(encoder.anatomy), indent=1).encode()
        }
    else:
        from slimvox.hf.whisper import SlimvoxWhisperConfig, SlimvoxWhisperForConditionalGeneration

        architecture = SlimvoxWhisperForConditionalGeneration.__name__
        config = SlimvoxWhisperConfig(**decoder.config, architectures=[architecture], **fields)
        tensors = {ENCODER_PREFIX + name: tensor for name, tensor in tensors.items()}
        tensors |= {name: tensor.to(dtype).contiguous() for name, tensor in decoder.tensors.items()}
        files = dict(decoder.files)
        if not {*PREPROCESSOR_FILES} & {*files}:
            described = whisper_preprocessor_config(encoder.anatomy)
            files["preprocessor_config.json"] = json.dumps(described, indent=1).encode()
    write_atomically(directory / WEIGHTS, save(tensors, metadata={"format": "pt"}))
    remove_stale_weights(directory, keep=WEIGHTS)
    if kept_indices is None:
        (directory / "kept_indices.json").unlink(missing_ok=True)
    else:
        write_atomically(directory / "kept_indices.json", json.dumps(kept_indices).encode())
    for name, content in files.items():
        write_atomically(directory / name, content)
    write_atomically(directory / "README.md", model_card.encode())
    for name, code in code_files(whisper=decoder is not None).items():
        write_atomically(directory / name, code.encode())
    write_atomically(directory / "config.json", config.to_json_string().encode())


def checked_weights(encoder: SpeechEncoder) -> dict[str, Tensor]:
    """The weights of an encoder by their plain names, checked to be those of its anatomy, so that they can be saved.

    Raises:
        SlimvoxError: if they are not, as with adapters or after quantisation.
    """
    found = {plain_name(name): each for name, each in encoder.state_dict().items()}
    tensors = {name: each for name, each in found.items() if isinstance(each, Tensor)}
    with torch.device("meta"):
        expected = empty_encoder(encoder.anatomy)
    problems = mismatches(expected, tensors)
    # Quantised weights are of another type, or of a subclass that calls itself floating point.
    problems += [
        f"{name} is a {type(each).__name__} of {each.dtype}"
        for name, each in tensors.items()
        if type(each) is not Tensor or not each.is_floating_point()
    ]
    if problems:
        raise SlimvoxError(
            f"the weights are not those of the encoder's anatomy, so that it cannot be saved ({problems[0]}):"
            f" {MERGE_FIRST}"
        )
    return tensors
