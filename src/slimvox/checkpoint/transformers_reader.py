"""Reads wav2vec 2.0, HuBERT and WavLM checkpoints written by `transformers`."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from slimvox.anatomy import FAMILIES, ConvAnatomy, EncoderAnatomy, dense_layer
from slimvox.checkpoint.empty import empty_encoder
from slimvox.encoder import SpeechEncoder
from slimvox.errors import SlimvoxError

logger = logging.getLogger("slimvox.checkpoint")

RENAMES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^encoder\.layers\.0\.attention\.rel_attn_embed\.", "rel_attn_embed."),
        (r"^encoder\.(layers\.\d+\.attention)\.gru_rel_pos_", r"\1.gate.gru_rel_pos_"),
        (r"^encoder\.(pos_conv_embed|layer_norm|layers)\.", r"\1."),
    )
)
"""From the names of `transformers` to ours."""

ENCODER_NAMES = re.compile(r"^(feature_extractor|feature_projection|encoder)\.")
TRAINING_ONLY = ("masked_spec_embed",)


@dataclass(frozen=True, kw_only=True)
class ReadEncoder:
    """An encoder as read, with what was found beside it."""

    encoder: SpeechEncoder
    left_aside: tuple[str, ...]
    """Names of the modules in the file that are no part of the encoder (task heads, quantizers)."""


def read_transformers_directory(directory: Path) -> ReadEncoder:
    """Read `config.json`, the weights and, if it is there, `preprocessor_config.json`.

    Weights come from safetensors (sharded too) or, through torch's weights-only loading, from `pytorch_model.bin`.
    From a fine-tuned checkpoint (`...ForCTC`, `...ForSequenceClassification` and so on) the encoder is taken and the
    head is left aside.

    Raises:
        SlimvoxError: for an unsupported architecture, missing files, missing or mismatched tensors.
    """
    anatomy = read_transformers_anatomy(directory)
    tensors, left_aside = encoder_tensors(read_tensors(directory), anatomy)
    encoder = empty_encoder(anatomy)
    load_exactly(encoder, tensors, directory)
    if left_aside:
        logger.info("%s: only the encoder is taken; left aside: %s", directory, ", ".join(left_aside))
    return ReadEncoder(encoder=encoder, left_aside=left_aside)


def read_transformers_anatomy(directory: Path) -> EncoderAnatomy:
    """What the encoder is made of, from `config.json` and, if it is there, `preprocessor_config.json`.

    Raises:
        SlimvoxError: for an unsupported architecture or a damaged file.
    """
    preprocessor_file = directory / "preprocessor_config.json"
    preprocessor = read_json(preprocessor_file) if preprocessor_file.is_file() else {}
    normalize = bool(preprocessor.get("do_normalize", False))
    return anatomy_from_config(read_json(directory / "config.json"), directory, normalize_waveform=normalize)


def anatomy_from_config(
    config: dict[str, Any], source: Path | str, *, normalize_waveform: bool
) -> EncoderAnatomy:
    """The anatomy that a `transformers` configuration describes.

    Raises:
        SlimvoxError: naming everything in the configuration that slimvox cannot represent.
    """
    family = config.get("model_type")
    if family not in FAMILIES:
        raise SlimvoxError(
            f"{source}: `model_type` must be one of {', '.join(FAMILIES)}, but is {family!r} instead;"
            " slimvox prunes wav2vec 2.0, HuBERT and WavLM encoders"
        )
    config = {**_defaults(family), **config}
    problems = [
        f"`{name}` is {config[name]!r}"
        for name, supported in (
            ("hidden_act", ("gelu",)),
            ("feat_extract_activation", ("gelu",)),
            ("add_adapter", (False, None)),
            ("adapter_attn_dim", (None,)),
            ("conv_pos_batch_norm", (False, None)),
        )
        if config.get(name, supported[0]) not in supported
    ]
    if problems:
        raise SlimvoxError(f"{source}: this variant of {family} is not supported yet: {', '.join(problems)}")
    try:
        width, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        layer = dense_layer(
            heads=heads, head_width=width // heads, intermediate=int(config["intermediate_size"])
        )
        return EncoderAnatomy(
            family=family,
            convolutions=tuple(
                ConvAnatomy(channels=channels, kernel=kernel, stride=stride)
                for channels, kernel, stride in zip(
                    config["conv_dim"], config["conv_kernel"], config["conv_stride"], strict=True
                )
            ),
            conv_norm=config["feat_extract_norm"],
            conv_bias=bool(config["conv_bias"]),
            projection_norm=bool(config.get("feat_proj_layer_norm", True)),
            width=width,
            position_kernel=int(config["num_conv_pos_embeddings"]),
            position_groups=int(config["num_conv_pos_embedding_groups"]),
            attention_heads=heads,
            layers=(layer,) * int(config["num_hidden_layers"]),
            pre_norm=bool(config["do_stable_layer_norm"]),
            layer_norm_eps=float(config["layer_norm_eps"]),
            position_buckets=int(config["num_buckets"]) if family == "wavlm" else 0,
            position_max_distance=int(config["max_bucket_distance"]) if family == "wavlm" else 0,
            normalize_waveform=normalize_waveform,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SlimvoxError(f"{source}: config.json does not describe a {family} encoder: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises `SlimvoxError` where that is not what the file holds."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SlimvoxError(f"{path.parent}: there is no {path.name}; this is no model directory") from error
    except (OSError, ValueError) as error:
        raise SlimvoxError(f"{path} can't be read: {error}") from error
    if not isinstance(data, dict):
        raise SlimvoxError(f"{path} must hold a JSON object, but holds {type(data).__name__} instead")
    return data


def read_tensors(directory: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint, on the CPU, as stored."""
    index = directory / "model.safetensors.index.json"
    whole, pickled = directory / "model.safetensors", directory / "pytorch_model.bin"
    try:
        if whole.is_file():
            return load_file(whole)
        if index.is_file():
            shards = sorted(set(read_json(index)["weight_map"].values()))
            return {name: tensor for shard in shards for name, tensor in load_file(directory / shard).items()}
        if pickled.is_file():
            loaded = torch.load(pickled, map_location="cpu", weights_only=True)
            return {name: tensor for name, tensor in loaded.items() if isinstance(tensor, Tensor)}
    except (OSError, KeyError, SafetensorError, RuntimeError, EOFError, AttributeError) as error:
        raise SlimvoxError(
            f"{directory}: the weights can't be read, the file may be damaged: {error}"
        ) from error
    except Exception as error:  # torch's unpickler raises its own types for what weights-only loading refuses
        raise SlimvoxError(f"{pickled} can't be loaded as plain weights: {error}") from error
    raise SlimvoxError(f"{directory}: there are no weights (model.safetensors or pytorch_model.bin)")


def encoder_tensors(
    tensors: dict[str, Tensor], anatomy: EncoderAnatomy
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Take the encoder's tensors out of a checkpoint's, under our names, in float32.

    Returns:
        The tensors, and the names of the modules that were left aside.
    """
    prefix = f"{anatomy.family}."
    taken: dict[str, Tensor] = {}
    aside: list[str] = []
    for name, tensor in tensors.items():
        short = name.removeprefix(prefix)
        if ENCODER_NAMES.match(short):
            taken[short] = tensor.float()
        elif short not in TRAINING_ONLY:
            aside.append(short.rpartition(".")[0] or short)
    _fold_weight_norm(taken)
    renamed = {}
    for name, tensor in taken.items():
        for pattern, replacement in RENAMES:
            name = pattern.sub(replacement, name)
        renamed[name] = tensor
    return renamed, tuple(dict.fromkeys(aside))


def load_exactly(model: nn.Module, tensors: dict[str, Tensor], source: Path | str) -> None:
    """Load tensors into a model; every one must be there, be known and fit.

    Raises:
        SlimvoxError: naming what is missing, unknown or of another shape.
    """
    wanted = model.state_dict()
    problems = [f"missing: {name}" for name in wanted if name not in tensors]
    problems += [f"unknown: {name}" for name in tensors if name not in wanted]
    problems += [
        f"{name} must be {tuple(wanted[name].shape)}, but is {tuple(tensor.shape)} instead"
        for name, tensor in tensors.items()
        if name in wanted and tensor.shape != wanted[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise SlimvoxError(f"{source}: the weights do not fit config.json: {shown}")
    model.load_state_dict(tensors)


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
    """What `transformers` assumes for the fields that a config.json leaves out."""
    from transformers.models.hubert.configuration_hubert import HubertConfig
    from transformers.models.wav2vec2.configuration_wav2vec2 import Wav2Vec2Config
    from transformers.models.wavlm.configuration_wavlm import WavLMConfig

    classes = {"wav2vec2": Wav2Vec2Config, "hubert": HubertConfig, "wavlm": WavLMConfig}
    defaults: dict[str, Any] = classes[family]().to_dict()
    return defaults
