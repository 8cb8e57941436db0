"""Reads wav2vec 2.0, HuBERT and WavLM checkpoints written by `transformers`."""

from __future__ import annotations

import logging
import re
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from slimvox.checkpoint.empty import empty_encoder
from slimvox.checkpoint.json_fields import Fields, Size, Sizes, read_json
from slimvox.checkpoint.normalization import normalizes_waveforms
from slimvox.checkpoint.tensors import Split, as_float32, load_exactly, read_tensors, split_checkpoint
from slimvox.encoder import SpeechEncoder
from slimvox.structures.anatomy import FAMILIES, ConvAnatomy, ConvNorm, EncoderAnatomy, dense_layer
from slimvox.util.errors import SlimvoxError
from slimvox.util.validation import ProperShare, Range

logger = logging.getLogger("slimvox.checkpoint")

RENAMES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^encoder\.layers\.0\.attention\.rel_attn_embed\.", "rel_attn_embed."),
        (r"^encoder\.(layers\.\d+\.attention)\.gru_rel_pos_", r"\1.gate.gru_rel_pos_"),
        (r"^encoder\.(pos_conv_embed|layer_norm|layers)\.", r"\1."),
    )
)
"""Names in `transformers` checkpoints, mapped to slimvox's."""

MODULES = ("feature_extractor", "feature_projection", "encoder")
"""Modules of an encoder in `transformers`."""
TRAINING_ONLY = ("masked_spec_embed",)
Layers = Annotated[int, Range(at_least=1, at_most=1000)]


@dataclass(frozen=True, kw_only=True)
class ReadEncoder:
    """An encoder as read, with what was found beside it."""

    encoder: SpeechEncoder
    left_aside: tuple[str, ...]
    """Names of the modules in the file that are no part of the encoder (task heads, quantizers)."""


def read_transformers_directory(directory: Path) -> ReadEncoder:
    """Read `config.json`, the weights and the settings of the feature extractor.

    Weights come from safetensors or, through torch's weights-only loading, from pickles, whole or in shards. From a
    fine-tuned checkpoint (`...ForCTC`, `...ForSequenceClassification` and so on) the encoder is taken and the head is
    left aside.

    Raises:
        SlimvoxError: for an unsupported architecture, missing files, missing or mismatched tensors.
    """
    anatomy = read_transformers_anatomy(directory)
    split = split_transformers(read_tensors(directory), anatomy.family, directory)
    encoder = empty_encoder(anatomy)
    load_exactly(encoder, encoder_tensors(split.encoder, directory), directory)
    if split.head:
        logger.info("%s: only the encoder is used; ignored: %s", directory, ", ".join(split.head_modules))
    return ReadEncoder(encoder=encoder, left_aside=split.head_modules)


def read_transformers_anatomy(directory: Path) -> EncoderAnatomy:
    """Read an encoder's anatomy from `config.json` and the settings of the feature extractor.

    Raises:
        SlimvoxError: for an unsupported architecture or a damaged file.
    """
    file = directory / "config.json"
    config = read_json(file)
    check_family(config, file)  # before anything else is said about a model of another kind
    return anatomy_from_config(config, file, normalize_waveform=normalizes_waveforms(directory))


def check_family(config: dict[str, Any], source: Path | str) -> None:
    """Raise `SlimvoxError` where a configuration is not of a model that slimvox can represent."""
    family = config.get("model_type")
    if family not in FAMILIES:
        raise SlimvoxError(
            f"{source}: `model_type` must be one of {', '.join(FAMILIES)}, but is {reprlib.repr(family)} instead;"
            " slimvox prunes wav2vec 2.0, HuBERT and WavLM encoders"
        )
    if config.get("conv_pos_batch_norm"):
        raise SlimvoxError(
            f"{source}: models with `conv_pos_batch_norm` (mHuBERT-147) are not supported, because a batch norm"
            " before a zero-padded convolution cannot be folded into it: its shift would reach into the padding"
        )
    problems = [
        f"`{name}` is {reprlib.repr(config[name])}"
        for name, supported in (
            ("hidden_act", ("gelu",)),
            ("feat_extract_activation", ("gelu",)),
            ("add_adapter", (False, None)),
            ("adapter_attn_dim", (None,)),
        )
        if config.get(name, supported[0]) not in supported
    ]
    if problems:
        raise SlimvoxError(f"{source}: this variant of {family} is not supported yet: {', '.join(problems)}")


def anatomy_from_config(
    config: dict[str, Any], source: Path | str, *, normalize_waveform: bool
) -> EncoderAnatomy:
    """The anatomy that a `transformers` configuration describes.

    Raises:
        SlimvoxError: naming everything in the configuration that slimvox cannot represent, or the field whose value is
            of the wrong type or out of range.
    """
    check_family(config, source)
    family = config["model_type"]
    fields = Fields({"feat_proj_layer_norm": True, **_defaults(family), **config}, source)
    width, heads = fields.get("hidden_size", Size), fields.get("num_attention_heads", Size)
    layers = fields.get("num_hidden_layers", Layers)
    sizes = [fields.get(name, Sizes) for name in ("conv_dim", "conv_kernel", "conv_stride")]
    if len({len(each) for each in sizes}) > 1:
        raise SlimvoxError(
            f"{source}: `conv_dim`, `conv_kernel` and `conv_stride` must be lists of one length, but have"
            f" {', '.join(str(len(each)) for each in sizes)} values"
        )
    if heads > width:
        raise SlimvoxError(
            f"{source}: `hidden_size` {width} must be a multiple of `num_attention_heads` {heads}"
        )
    layer = dense_layer(
        heads=heads, head_width=width // heads, intermediate=fields.get("intermediate_size", Size)
    )
    wavlm = family == "wavlm"
    anatomy: dict[str, Any] = {
        "family": family,
        "convolutions": tuple(
            ConvAnatomy(channels=channels, kernel=kernel, stride=stride)
            for channels, kernel, stride in zip(*sizes, strict=True)
        ),
        "conv_norm": fields.get("feat_extract_norm", ConvNorm),
        "conv_bias": fields.get("conv_bias", bool),
        "projection_norm": fields.get("feat_proj_layer_norm", bool),
        "width": width,
        "position_kernel": fields.get("num_conv_pos_embeddings", Size),
        "position_groups": fields.get("num_conv_pos_embedding_groups", Size),
        "attention_heads": heads,
        "layers": (layer,) * layers,
        "pre_norm": fields.get("do_stable_layer_norm", bool),
        "layer_norm_eps": fields.get("layer_norm_eps", ProperShare),
        "position_buckets": fields.get("num_buckets", Size) if wavlm else 0,
        "position_max_distance": fields.get("max_bucket_distance", Size) if wavlm else 0,
        "normalize_waveform": normalize_waveform,
    }
    try:
        return EncoderAnatomy(**anatomy)
    except ValueError as error:
        raise SlimvoxError(f"{source} does not describe a {family} encoder: {error}") from error


def split_transformers(tensors: dict[str, Tensor], family: str, source: Path | str) -> Split:
    """Sort the tensors of a checkpoint of `transformers` into the encoder's and all others.

    Raises:
        SlimvoxError: if there is not exactly one encoder.
    """
    return split_checkpoint(tensors, source, modules=MODULES, unused=TRAINING_ONLY, prefix=f"{family}.")


def encoder_tensors(tensors: dict[str, Tensor], source: Path | str) -> dict[str, Tensor]:
    """An encoder's tensors under our names, in float32.

    Args:
        tensors: named as in the bare model of `transformers`.
        source: where they come from, for messages.

    Raises:
        SlimvoxError: for a tensor of the wrong type, or with NaN or infinite values.
    """
    taken = as_float32(tensors, source)
    _fold_weight_norm(taken)
    renamed = {}
    for name, tensor in taken.items():
        for pattern, replacement in RENAMES:
            name = pattern.sub(replacement, name)
        renamed[name] = tensor
    return renamed


def _fold_weight_norm(tensors: dict[str, Tensor]) -> None:
    """Replace magnitude and direction of the positional convolution by its weight, in place.

    The norm has one magnitude per tap (dim 2). Both of torch's spellings occur. numpy adds up in an order that does not
    depend on the number of threads, unlike torch's own function, so that a model is always the same to the last bit.
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


def _defaults(family: str) -> dict[str, Any]:
    """Values that `transformers` assumes for fields missing from a config.json."""
    from transformers.models.hubert.configuration_hubert import HubertConfig
    from transformers.models.wav2vec2.configuration_wav2vec2 import Wav2Vec2Config
    from transformers.models.wavlm.configuration_wavlm import WavLMConfig

    classes = {"wav2vec2": Wav2Vec2Config, "hubert": HubertConfig, "wavlm": WavLMConfig}
    defaults: dict[str, Any] = classes[family]().to_dict()
    return defaults
