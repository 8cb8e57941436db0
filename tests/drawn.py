"""Hypothesis strategies: anatomies, encoders and masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from slimvox.encoder import SpeechEncoder
from slimvox.families import families, find_family
from slimvox.structures import Address, structure
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.structures.parts import ConvAnatomy, HeadAnatomy, LayerAnatomy, dense_layer
from slimvox.structures.units import units


@st.composite
def anatomies(draw: st.DrawFn, names: Sequence[str] = ()) -> EncoderAnatomy:
    """A small dense encoder of any layout and of any family, or one of those that are named."""
    family: Any = draw(st.sampled_from(names or [family.model_type for family in families()]))
    described = {*find_family(family, "tests").fields.values()}
    heads = draw(st.integers(1, 4))
    head_width = draw(st.sampled_from([2, 4, 6]))
    layout = draw(st.booleans())
    layer = dense_layer(heads=heads, head_width=head_width, intermediate=draw(st.integers(1, 12)))
    made = find_family(family, "tests").convolutions
    if made is not None:
        (first,), projection = made(heads * head_width).values()
        fields = {
            **find_family(family, "tests").constants,
            "convolutions": (replace(first, channels=draw(st.integers(2, 8))),),
            "projection_convolution": projection,
            "mel_bins": draw(st.integers(2, 6)),
            "position_table": 100,
        }
        return EncoderAnatomy(
            family=family,
            width=heads * head_width,
            attention_heads=heads,
            layers=(layer,) * draw(st.integers(1, 3)),
            **fields,
        )
    return EncoderAnatomy(
        family=family,
        convolutions=tuple(
            ConvAnatomy(channels=draw(st.integers(2, 8)), kernel=kernel, stride=stride)
            for kernel, stride in ((10, 5), (3, 2), (2, 2))
        ),
        conv_norm=draw(st.sampled_from(["group", "layer"])),
        conv_bias=draw(st.booleans()),
        projection_norm=draw(st.booleans()) if "projection_norm" in described else True,
        width=heads * head_width,
        position_kernel=draw(st.sampled_from([3, 4])),
        position_groups=heads,
        attention_heads=heads,
        layers=(layer,) * draw(st.integers(1, 3)),
        pre_norm=layout,
        layer_norm_eps=1e-5,
        position_buckets=16 if "position_buckets" in described else 0,
        position_max_distance=24 if "position_buckets" in described else 0,
        position_stack=draw(st.integers(1, 3)) if "position_stack" in described else 0,
    )


def random_encoder(anatomy: EncoderAnatomy, seed: int) -> SpeechEncoder:
    """An encoder whose parameters are all random, norms and biases too."""
    torch.manual_seed(seed)
    encoder = SpeechEncoder(anatomy).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return encoder


@st.composite
def masks_for(draw: st.DrawFn, anatomy: EncoderAnatomy) -> dict[Address, Tensor]:
    """Masks of every structure and kind: absent, all ones, all zeros, sparse with scales between 0 and 1."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    masks = {}
    for address, size in units(anatomy).sizes.items():
        kind = structure(address.structure)
        if kind.kind == "block":
            value = draw(st.sampled_from([None, 0.0, 0.4, 1.0]))
            if value is not None:
                masks[address] = torch.tensor([value])
            continue
        state = draw(st.sampled_from(["absent", "ones", "zeros", "sparse", "sparse", "sparse"]))
        if state == "absent":
            continue
        values = torch.rand(size, generator=generator) * 0.9 + 0.1
        keep = torch.rand(size, generator=generator) < draw(st.sampled_from([0.1, 0.5, 0.9]))
        if state == "zeros":
            keep = torch.zeros(size, dtype=torch.bool)
        if kind.min_kept:
            keep[torch.randperm(size, generator=generator)[: kind.min_kept]] = True
        masks[address] = torch.ones(size) if state == "ones" else values * keep
    return masks


def uneven_masks(anatomy: EncoderAnatomy) -> dict[Address, Tensor]:
    """Always the same: heads of unequal width, one of them gone, and another share of each layer's feed-forward."""
    masks = {}
    for index, layer in enumerate(anatomy.layers):
        head = torch.ones(len(layer.heads))
        head[index % len(head)] = 0.0
        masks[Address("head", index)] = head
        masks[Address("qk", index)] = (torch.arange(layer.qk) % (index + 2) > 0).float()
        masks[Address("vo", index)] = (torch.arange(layer.vo) % 3 > 0).float()
        masks[Address("intermediate", index)] = (torch.arange(layer.intermediate) % (index + 3) > 0).float()
    return masks


def odd_encoder(family: Any = "wavlm", *, pre_norm: bool = False, seed: int = 0) -> SpeechEncoder:
    """Always the same shapes: 2, 1 and no heads, widths of 0 and 1, blocks and a whole layer gone."""
    dense = EncoderAnatomy(
        family=family,
        convolutions=tuple(
            ConvAnatomy(channels=6, kernel=kernel, stride=stride)
            for kernel, stride in ((10, 5), (3, 2), (2, 2))
        ),
        conv_norm="layer" if pre_norm else "group",
        conv_bias=pre_norm,
        projection_norm=family != "hubert",
        width=16,
        position_kernel=5 if pre_norm else 8,
        position_groups=4,
        attention_heads=4,
        layers=(dense_layer(heads=4, head_width=4, intermediate=8),) * 5,
        pre_norm=pre_norm,
        layer_norm_eps=1e-5,
        position_buckets=16 if family == "wavlm" else 0,
        position_max_distance=24 if family == "wavlm" else 0,
    )
    one, two = HeadAnatomy(index=2, qk=1, vo=1), HeadAnatomy(index=0, qk=3, vo=4)
    pruned = replace(
        dense,
        convolutions=tuple(
            replace(convolution, channels=channels)
            for convolution, channels in zip(dense.convolutions, (5, 1, 3), strict=True)
        ),
        layers=(
            LayerAnatomy(attention=True, heads=(two, replace(one, qk=0)), feed_forward=True, intermediate=1),
            LayerAnatomy(attention=True, heads=(one,), feed_forward=False, intermediate=0),
            LayerAnatomy(attention=True, heads=(), feed_forward=True, intermediate=0),
            LayerAnatomy(attention=False, heads=(), feed_forward=False, intermediate=0),
            LayerAnatomy(attention=False, heads=(), feed_forward=True, intermediate=5),
        ),
    )
    encoder = SpeechEncoder(pruned, dense).eval()
    encoder.load_state_dict(random_encoder(pruned, seed).state_dict())
    return encoder
