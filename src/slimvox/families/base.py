"""The interface of a family of encoders, and the registry of all of them.

A family is one kind of model in `transformers`: `wav2vec2`, `hubert`, `wavlm`. Each is one file of this package;
reading, writing, task heads and the tests of parity iterate over the registry and name none of them. An
encoder, once read, is described by its `EncoderAnatomy` alone: files that slimvox wrote need no family to load.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.util.registry import Registry

HEAD_NAMES = ("ForCTC", "ForSequenceClassification", "ForAudioFrameClassification", "ForXVector")
"""Endings of the names of classes, `transformers`' and ours, whose head can be carried over and exported."""

FIELDS = {
    "hidden_size": "width",
    "num_attention_heads": "attention_heads",
    "conv_bias": "conv_bias",
    "feat_extract_norm": "conv_norm",
    "num_conv_pos_embeddings": "position_kernel",
    "num_conv_pos_embedding_groups": "position_groups",
    "do_stable_layer_norm": "pre_norm",
    "layer_norm_eps": "layer_norm_eps",
}
"""Field of a wav2vec 2.0 configuration -> field of `EncoderAnatomy` with the same value."""
CONV_FIELDS = {"conv_dim": "channels", "conv_kernel": "kernel", "conv_stride": "stride"}
"""Field of a configuration, a list -> field of each `ConvAnatomy`, for families that list their convolutions."""
MODULES = ("feature_extractor", "feature_projection", "encoder")
"""Modules of wav2vec 2.0's encoder in `transformers`."""
FIRST_WEIGHT = "feature_extractor.conv_layers.0.conv.weight"
"""The tensor that determines the place of the encoder in a checkpoint. The head of an x-vector model has a
`feature_extractor` too, but no convolutions in it.
"""
RENAMES = ((r"^encoder\.(pos_conv_embed|layer_norm|layers)\.", r"\1."),)
"""Regular expressions from the names of wav2vec 2.0's weights to those of `SpeechEncoder`, with replacements."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One kind of model in `transformers`, with the information needed to read and write it."""

    model_type: str
    """`model_type` of its `config.json`, known to `transformers`' `AutoConfig`; also `EncoderAnatomy.family`."""
    title: str
    """Name in texts, such as `wav2vec 2.0`."""
    prefix: str
    """Name of the encoder within a model with a head (`base_model_prefix`)."""
    fields: Mapping[str, str] = field(default_factory=lambda: FIELDS)
    """Field of the configuration -> field of `EncoderAnatomy` with the same value; read in both directions.
    Convolutions and layers are not listed here."""
    layers_field: str = "num_hidden_layers"
    """Field of the configuration with the number of Transformer layers."""
    intermediate_field: str = "intermediate_size"
    """Field of the configuration with the width of the feed-forward blocks."""
    convolutions: Callable[[int], Mapping[str, Any]] | None = None
    """Fields of `EncoderAnatomy` for the convolutions of an encoder of a width, where the configuration does not list
    them in `CONV_FIELDS`."""
    constants: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `EncoderAnatomy` that the configuration does not mention, with their values."""
    renames: tuple[tuple[str, str], ...] = RENAMES
    """Regular expressions from the names of its weights, without the prefix, to those of `SpeechEncoder`, with
    replacements; applied one after the other. A weight norm of a positional convolution is folded before."""
    modules: tuple[str, ...] = MODULES
    """Names of the encoder's modules in `transformers`."""
    first_weight: str = FIRST_WEIGHT
    """Name of the weight of its first convolution in `transformers`."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Fields of the configuration that must not be true, each with the reason."""
    feature_extractor: str = "Wav2Vec2FeatureExtractor"
    """Class that prepares waveforms."""
    extractor_settings: Mapping[str, Any] | None = None
    """Settings that the feature extractor must have, with their values, if it computes the spectrogram that slimvox
    computes in the encoder; None if its only relevant setting is `do_normalize`.
    """
    recipe: str = "default"
    """Recipe of `slimvox prune` for its models, if none is given."""
    heads: tuple[str, ...] = HEAD_NAMES
    """The names in `HEAD_NAMES` for which `transformers` has a class of this family."""


def _check_family(family: Family) -> None:
    """Raise ValueError if a field is mapped to one that `EncoderAnatomy` does not have."""
    unknown = {*family.fields.values(), *family.constants} - {*EncoderAnatomy.__dataclass_fields__}
    if unknown:
        raise ValueError(
            f"family {family.model_type!r} names {', '.join(sorted(unknown))}, which EncoderAnatomy does not have"
        )


_FAMILIES: Registry[Family] = Registry("family", key="model_type", check=_check_family)
register_family = _FAMILIES.register
unregister_family = _FAMILIES.unregister
find_family = _FAMILIES.find
families = _FAMILIES.all


def config_fields(
    anatomy: EncoderAnatomy,
    fields: Mapping[str, str],
    *,
    layers_field: str = "num_hidden_layers",
    convolutions: bool = True,
) -> dict[str, Any]:
    """Fields of a configuration for an anatomy, without the sizes of its Transformer layers.

    Args:
        anatomy: the encoder's.
        fields: `Family.fields`.
        layers_field: `Family.layers_field`.
        convolutions: whether the configuration lists the convolutions.
    """
    values: dict[str, Any] = {name: getattr(anatomy, ours) for name, ours in fields.items()}
    for name, ours in CONV_FIELDS.items() if convolutions else ():
        values[name] = [getattr(convolution, ours) for convolution in anatomy.convolutions]
    return {**values, layers_field: len(anatomy.layers)}
