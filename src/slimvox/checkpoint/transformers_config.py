"""Configurations of `transformers` models as anatomies, and back."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from slimvox.checkpoint.json_fields import Fields, Size, Sizes
from slimvox.families import Family, config_fields, find_family
from slimvox.families.base import CONV_FIELDS
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.structures.parts import ConvAnatomy, dense_layer
from slimvox.util.errors import SlimvoxError
from slimvox.util.validation import ProperShare, Range

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

Layers = Annotated[int, Range(at_least=1, at_most=1000)]
RANGES: dict[Any, Any] = {int: Size, float: ProperShare}
"""Type of a field of an anatomy -> valid values of the same field in a configuration, where those are fewer."""
SUPPORTED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("gelu",),
    "feat_extract_activation": ("gelu",),
    "activation_function": ("gelu",),
    "add_adapter": (False, None),
    "adapter_attn_dim": (None,),
}
"""Values of fields that change the encoder and have no place in an anatomy; the first is the default."""


def family_of(config: Mapping[str, Any], source: Path | str) -> Family:
    """The family of a model, from its configuration.

    Raises:
        SlimvoxError: for a model of another kind, or a variant that slimvox cannot represent.
    """
    family = find_family(config.get("model_type"), source)
    for name, reason in family.refused.items():
        if config.get(name):
            raise SlimvoxError(f"{source}: models with `{name}` {reason}")
    problems = [
        f"`{name}` is {reprlib.repr(config[name])}"
        for name, supported in SUPPORTED.items()
        if config.get(name, supported[0]) not in supported
    ]
    if problems:
        raise SlimvoxError(
            f"{source}: this variant of {family.model_type} is not supported yet: {', '.join(problems)}"
        )
    return family


def anatomy_from_config(
    config: dict[str, Any], source: Path | str, *, normalize_waveform: bool
) -> EncoderAnatomy:
    """The anatomy that a `transformers` configuration describes.

    Raises:
        SlimvoxError: naming everything in the configuration that slimvox cannot represent, or the field whose value is
            of the wrong type or out of range.
    """
    from transformers import AutoConfig

    family = family_of(config, source)
    defaults = AutoConfig.for_model(family.model_type).to_dict()  # for fields that a file leaves out
    fields = Fields({**defaults, **config}, source)
    hints = get_type_hints(EncoderAnatomy)
    values = {
        ours: fields.get(name, RANGES.get(hints[ours], hints[ours])) for name, ours in family.fields.items()
    }
    width, heads = values["width"], values["attention_heads"]
    if heads > width:
        named = {ours: name for name, ours in family.fields.items()}
        raise SlimvoxError(
            f"{source}: `{named['width']}` {width} must be a multiple of `{named['attention_heads']}` {heads}"
        )
    convolutions = _convolutions(fields) if family.convolutions is None else family.convolutions(width)
    intermediate = fields.get(family.intermediate_field, Size)
    layer = dense_layer(heads=heads, head_width=width // heads, intermediate=intermediate)
    anatomy: dict[str, Any] = {
        **values,
        **family.constants,
        "family": family.model_type,
        **convolutions,
        "layers": (layer,) * fields.get(family.layers_field, Layers),
        "normalize_waveform": normalize_waveform,
    }
    try:
        return EncoderAnatomy(**anatomy)
    except ValueError as error:
        raise SlimvoxError(f"{source} does not describe a {family.model_type} encoder: {error}") from error


def _convolutions(fields: Fields) -> dict[str, Any]:
    """The convolutions of a configuration that lists them."""
    sizes = {ours: fields.get(name, Sizes) for name, ours in CONV_FIELDS.items()}
    lengths = [len(each) for each in sizes.values()]
    if len(set(lengths)) > 1:
        raise SlimvoxError(
            f"{fields.source}: `conv_dim`, `conv_kernel` and `conv_stride` must be lists of one length, but have"
            f" {', '.join(map(str, lengths))} values"
        )
    each_size = zip(*sizes.values(), strict=True)
    return {"convolutions": tuple(ConvAnatomy(**dict(zip(sizes, each, strict=True))) for each in each_size)}


def transformers_config(anatomy: EncoderAnatomy) -> PreTrainedConfig:
    """The configuration of the model in `transformers` that has this anatomy: the reverse of `anatomy_from_config`.

    Raises:
        SlimvoxError: if the encoder is pruned: `transformers` knows no layers that differ.
    """
    from transformers import AutoConfig

    layer = anatomy.layers[0] if anatomy.layers else None
    widths = {(head.qk, head.vo) for head in layer.heads} if layer else set()
    dense = layer is not None and len(layer.heads) == anatomy.attention_heads
    if not dense or widths != {(anatomy.head_width,) * 2} or len(set(anatomy.layers)) > 1:
        raise SlimvoxError("a pruned encoder cannot be represented by `transformers`' own classes")
    assert layer is not None
    family = find_family(anatomy.family, "anatomy")
    fields = config_fields(
        anatomy, family.fields, layers_field=family.layers_field, convolutions=family.convolutions is None
    )
    return AutoConfig.for_model(
        family.model_type, **fields, **{family.intermediate_field: layer.intermediate}
    )
