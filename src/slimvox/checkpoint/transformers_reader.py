"""Reads the checkpoints of all families that `transformers` writes."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from slimvox.checkpoint.empty import empty_encoder
from slimvox.checkpoint.json_fields import read_json
from slimvox.checkpoint.normalization import normalizes_waveforms
from slimvox.checkpoint.tensors import Split, as_float32, load_exactly, read_tensors, split_checkpoint
from slimvox.checkpoint.transformers_config import anatomy_from_config, family_of
from slimvox.encoder import SpeechEncoder
from slimvox.families import Family, find_family
from slimvox.structures.anatomy import EncoderAnatomy

logger = logging.getLogger("slimvox.checkpoint")

TRAINING_ONLY = ("masked_spec_embed",)


@dataclass(frozen=True, kw_only=True)
class ReadEncoder:
    """An encoder and further contents of the directory that it was read from."""

    encoder: SpeechEncoder
    head_modules: tuple[str, ...]
    """Names of the modules in the file that are not part of the encoder (task heads, quantizers)."""


def read_transformers_directory(directory: Path) -> ReadEncoder:
    """Read `config.json`, the weights and the settings of the feature extractor.

    Weights come from safetensors or, through torch's weights-only loading, from pickles, whole or in shards. From a
    fine-tuned checkpoint (`...ForCTC`, `...ForSequenceClassification` and so on) only the encoder is read and the head
    is ignored.

    Raises:
        SlimvoxError: for an unsupported architecture, missing files, missing or mismatched tensors.
    """
    anatomy = read_transformers_anatomy(directory)
    family = find_family(anatomy.family, directory)
    split = split_transformers(read_tensors(directory), family, directory)
    encoder = empty_encoder(anatomy)
    load_exactly(encoder, encoder_tensors(split.encoder, family, directory), directory)
    if split.head:
        logger.info("%s: only the encoder is used; ignored: %s", directory, ", ".join(split.head_modules))
    return ReadEncoder(encoder=encoder, head_modules=split.head_modules)


def read_transformers_anatomy(directory: Path) -> EncoderAnatomy:
    """Read an encoder's anatomy from `config.json` and the settings of the feature extractor.

    Raises:
        SlimvoxError: for an unsupported architecture or a damaged file.
    """
    file = directory / "config.json"
    config = read_json(file)
    family = family_of(config, file)  # first, so that the error for another kind of model is about its family
    normalize = normalizes_waveforms(directory, family)
    return anatomy_from_config(config, file, normalize_waveform=normalize)


def split_transformers(tensors: dict[str, Tensor], family: Family, source: Path | str) -> Split:
    """Sort the tensors of a checkpoint of `transformers` into the encoder's and all others.

    Raises:
        SlimvoxError: if there is not exactly one encoder.
    """
    return split_checkpoint(
        tensors,
        source,
        modules=family.modules,
        first_weight=family.first_weight,
        unused=TRAINING_ONLY,
        prefix=f"{family.prefix}.",
    )


def encoder_tensors(tensors: dict[str, Tensor], family: Family, source: Path | str) -> dict[str, Tensor]:
    """An encoder's tensors under our names, in float32.

    Args:
        tensors: tensors named as in the bare model of `transformers`.
        family: family of the model.
        source: where they come from, for messages.

    Raises:
        SlimvoxError: for a tensor of the wrong type, or with NaN or infinite values.
    """
    taken = as_float32(tensors, source)
    _fold_weight_norm(taken)
    renamed = {}
    for name, tensor in taken.items():
        for pattern, replacement in family.renames:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


def _fold_weight_norm(tensors: dict[str, Tensor]) -> None:
    """Replace magnitude and direction of the positional convolution by its weight, in place.

    The norm has one magnitude per tap (dim 2). Both of torch's spellings occur. numpy sums in an order that does not
    depend on the number of threads, unlike torch's own function, so that a model is always bit-identical.
    """
    base = "encoder.pos_conv_embed.conv."
    for magnitude_name, direction_name in (
        ("parametrizations.weight.original0", "parametrizations.weight.original1"),
        ("weight_g", "weight_v"),
    ):
        if base + magnitude_name in tensors and base + direction_name in tensors:
            magnitude, direction = tensors.pop(base + magnitude_name), tensors.pop(base + direction_name)
            v = direction.double().numpy()
            scale = magnitude.double().numpy() / np.sqrt(np.square(v).sum(axis=(0, 1), keepdims=True))
            tensors[base + "weight"] = torch.from_numpy(v * scale).to(direction.dtype)
