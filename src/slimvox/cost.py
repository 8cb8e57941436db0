"""Parameters and multiply-accumulates (MACs), exactly and from the anatomy alone.

There is one formula for each, linear in every single size and fed with `EncoderSizes`. Given the sizes of an
anatomy (integers) it counts what is there; given the expected sizes of a gated encoder (tensors, see
`slimvox.gates`) it gives the expected cost, differentiable. The formulas hold for expectations because gates
are independent
and no product has the same gate in it twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from slimvox.anatomy import SAMPLE_RATE_HZ, EncoderAnatomy

CostKind = Literal["params", "macs", "latency"]
"""What a budget counts. The first two are exact and follow here; the third is measured, see `slimvox.latency`."""
CountedKind = Literal["params", "macs"]
GATE_OUTPUTS = 8
"""Outputs of WavLM's projection for the gate of the position bias (two gates, four summed units each)."""

Number = Any
"""An int, a float or a scalar torch tensor: the formulas only add and multiply."""


@dataclass(frozen=True, kw_only=True)
class LayerSizes:
    """Sizes of one Transformer layer, as numbers (exact) or expectations."""

    attention: Number
    """1 if the attention block exists."""
    heads: Number
    """Number of heads."""
    qk: Number
    """Query dimensions over all heads."""
    vo: Number
    """Value dimensions over all heads."""
    feed_forward: Number
    """1 if the feed-forward block exists."""
    intermediate: Number
    """Feed-forward width."""


@dataclass(frozen=True, kw_only=True)
class EncoderSizes:
    """All sizes that pruning can change."""

    channels: tuple[Number, ...]
    """Channels of each convolution."""
    layers: tuple[LayerSizes, ...]


def sizes_of(anatomy: EncoderAnatomy) -> EncoderSizes:
    """The sizes of an encoder as it stands."""
    return EncoderSizes(
        channels=tuple(convolution.channels for convolution in anatomy.convolutions),
        layers=tuple(
            LayerSizes(
                attention=int(layer.attention),
                heads=len(layer.heads),
                qk=layer.qk,
                vo=layer.vo,
                feed_forward=int(layer.feed_forward),
                intermediate=layer.intermediate,
            )
            for layer in anatomy.layers
        ),
    )


@dataclass(frozen=True, kw_only=True)
class BlockCosts:
    """A cost, split by block."""

    front_end: Number
    """Convolutions and their norms."""
    projection: Number
    """Feature projection with its norm."""
    position: Number
    """Positional convolution, the norm after it (or at the end, pre-norm) and WavLM's bias table."""
    attention: tuple[Number, ...]
    """Per layer: the attention block with its norm."""
    feed_forward: tuple[Number, ...]
    """Per layer: the feed-forward block with its norm."""

    @property
    def total(self) -> Number:
        """The sum of all blocks."""
        return self.front_end + self.projection + self.position + sum(self.attention) + sum(self.feed_forward)


def parameter_costs(anatomy: EncoderAnatomy, sizes: EncoderSizes | None = None) -> BlockCosts:
    """Parameters by block, as stored (weight norm folded, no mask embedding).

    `transformers` counts two more: the mask embedding (`width`) that only pre-training uses, and the
    magnitudes of the positional convolution's weight norm (`position_kernel`).

    Args:
        anatomy: gives what pruning never changes (kernels, width, norms), and the sizes where `sizes` is None.
        sizes: counts or expectations to use instead.
    """
    sizes = sizes or sizes_of(anatomy)
    width = anatomy.width
    front_end: Number = 0
    inputs: Number = 1
    for number, (convolution, outputs) in enumerate(zip(anatomy.convolutions, sizes.channels, strict=True)):
        front_end = front_end + inputs * outputs * convolution.kernel
        per_channel = int(anatomy.conv_bias) + 2 * int(anatomy.conv_norm == "layer" or number == 0)
        front_end = front_end + per_channel * outputs
        inputs = outputs
    projection = inputs * (width + 2 * int(anatomy.projection_norm)) + width
    position = width * (width // anatomy.position_groups) * anatomy.position_kernel + width
    position += 2 * width
    if not all(isinstance(layer.heads, int) and layer.heads == 0 for layer in sizes.layers):
        position += anatomy.position_buckets * anatomy.attention_heads
    attention, feed_forward = [], []
    for layer in sizes.layers:
        block = layer.qk * 2 * (width + 1) + layer.vo * (2 * width + 1) + layer.attention * width
        if anatomy.has_position_bias:
            has_heads = layer.attention if not isinstance(layer.heads, int) else int(layer.heads > 0)
            block = block + layer.heads + has_heads * GATE_OUTPUTS * (anatomy.head_width + 1)
        attention.append(block + _norm_parameters(anatomy, layer.attention))
        block = layer.intermediate * (2 * width + 1) + layer.feed_forward * width
        feed_forward.append(block + _norm_parameters(anatomy, layer.feed_forward))
    return BlockCosts(
        front_end=front_end,
        projection=projection,
        position=position,
        attention=tuple(attention),
        feed_forward=tuple(feed_forward),
    )


def mac_costs(anatomy: EncoderAnatomy, seconds: float, sizes: EncoderSizes | None = None) -> BlockCosts:
    """Multiply-accumulates for one clip of `seconds` seconds at 16 kHz, by block.

    Matrix products and convolutions are counted; norms, activations, softmax and bias additions are not
    (under 1 % of the work), as in the counters of fvcore, DeepSpeed and torch's `FlopCounterMode` (which counts
    two operations per MAC).

    Args:
        anatomy: see `parameter_costs`.
        seconds: length of the clip in seconds.
        sizes: counts or expectations to use instead of the anatomy's own.
    """
    sizes = sizes or sizes_of(anatomy)
    width = anatomy.width
    lengths = anatomy.conv_lengths(round(seconds * SAMPLE_RATE_HZ))
    frames = lengths[-1]
    front_end: Number = 0
    inputs: Number = 1
    for convolution, outputs, length in zip(anatomy.convolutions, sizes.channels, lengths, strict=True):
        front_end = front_end + inputs * outputs * (convolution.kernel * length)
        inputs = outputs
    attention, feed_forward = [], []
    for layer in sizes.layers:
        block = (layer.qk + layer.vo) * (2 * width * frames + frames * frames)
        if anatomy.has_position_bias:
            block = block + layer.heads * (GATE_OUTPUTS * anatomy.head_width * frames)
        attention.append(block)
        feed_forward.append(layer.intermediate * (2 * width * frames))
    return BlockCosts(
        front_end=front_end,
        projection=inputs * (width * frames),
        position=width * (width // anatomy.position_groups) * anatomy.position_kernel * frames,
        attention=tuple(attention),
        feed_forward=tuple(feed_forward),
    )


def parameters(anatomy: EncoderAnatomy) -> int:
    """Number of parameters of an encoder, as stored: equals `sum(p.numel() for p in encoder.parameters())`."""
    return int(parameter_costs(anatomy).total)


def macs(anatomy: EncoderAnatomy, seconds: float = 10.0) -> int:
    """Multiply-accumulates for one clip of `seconds` seconds."""
    return int(mac_costs(anatomy, seconds).total)


def cost(anatomy: EncoderAnatomy, kind: CountedKind, *, seconds: float = 10.0) -> int:
    """Either of the two by name; `seconds` matters for `macs` only."""
    return parameters(anatomy) if kind == "params" else macs(anatomy, seconds)


def _norm_parameters(anatomy: EncoderAnatomy, block_exists: Number) -> Number:
    """A pre-norm block takes its norm along when it goes; a post-norm layer keeps both norms."""
    return 2 * anatomy.width * (block_exists if anatomy.pre_norm else 1)
