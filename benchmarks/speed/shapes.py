"""Encoders of WavLM-Base+'s shape, dense and 72 % smaller, with random weights: speed does not depend on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from slimvox.checkpoint import load, write_slimvox_directory
from slimvox.checkpoint.transformers_reader import anatomy_from_config
from slimvox.costs import Cost, Parameters
from slimvox.encoder import SpeechEncoder
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.structures.parts import HeadAnatomy, dense_layer

PARAMETERS = Parameters()
SHARES = {"params": 0.28, "macs": 0.20}
"""Shares of the dense encoder's parameters that `paper` keeps, and of its MACs that `fast` keeps."""


def base_plus() -> EncoderAnatomy:
    """WavLM Base and Base+: `transformers`' default configuration."""
    return anatomy_from_config({"model_type": "wavlm"}, "WavLM Base+", normalize_waveform=False)


def even(*, channels: int, heads: int, cost: Cost = PARAMETERS) -> EncoderAnatomy:
    """Every convolution with so many channels, every layer with so many whole heads, and what is left for the FFN.

    Args:
        channels: of each convolution.
        heads: of each layer.
        cost: cost of which the encoder keeps its share (`SHARES`).
    """
    dense = base_plus()
    return _filled(
        replace(
            dense,
            convolutions=tuple(replace(each, channels=channels) for each in dense.convolutions),
            layers=(dense_layer(heads=heads, head_width=dense.head_width, intermediate=1),)
            * len(dense.layers),
        ),
        cost,
    )


def uneven(pruned: str | Path, round_to: int = 1) -> EncoderAnatomy:
    """The shape of a really pruned 12-layer encoder with as many heads or fewer, at Base+'s size.

    Every width keeps the share that it kept there, rounded; head numbers are scaled too.
    """
    dense, encoder = base_plus(), load(pruned)
    small, whole = encoder.anatomy, encoder.dense_anatomy

    def scaled(size: int, of: int, to: int) -> int:
        return min(to, max(1, round(size / of * to / round_to)) * round_to)

    convolutions = tuple(
        replace(each, channels=scaled(kept.channels, before.channels, each.channels))
        for each, kept, before in zip(dense.convolutions, small.convolutions, whole.convolutions, strict=True)
    )
    layers = []
    for layer, before in zip(small.layers, whole.layers, strict=True):
        copies = dense.attention_heads // len(before.heads)
        heads = [
            HeadAnatomy(
                index=head.index * copies + copy,
                qk=scaled(head.qk, whole.head_width, dense.head_width),
                vo=scaled(head.vo, whole.head_width, dense.head_width),
            )
            for head in layer.heads
            for copy in range(copies)
        ]
        width = scaled(layer.intermediate, before.intermediate, dense.layers[0].intermediate)
        layers.append(replace(layer, heads=tuple(heads), intermediate=width))
    return replace(dense, convolutions=convolutions, layers=tuple(layers))


def write(anatomy: EncoderAnatomy, directory: Path) -> Path:
    """A slimvox directory of that shape."""
    torch.manual_seed(0)
    encoder = SpeechEncoder(anatomy, base_plus()).eval()
    write_slimvox_directory(encoder, directory, kept_indices={}, model_card="Random weights.", details={})
    return directory


def _filled(anatomy: EncoderAnatomy, cost: Cost) -> EncoderAnatomy:
    """The widest FFNs with which the encoder stays below its share."""
    target = SHARES[cost.kind] * cost.of(base_plus())

    def with_width(width: int) -> EncoderAnatomy:
        layers = tuple(replace(layer, intermediate=width) for layer in anatomy.layers)
        return replace(anatomy, layers=layers)

    low, high = 1, anatomy.width * 4
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost.of(with_width(middle)) <= target else (low, middle)
    return with_width(low)
