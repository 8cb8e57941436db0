"""Parameters and multiply-accumulates (MACs), exactly and from the anatomy alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from slimvox.costs.base import LAYER_BLOCKS, Cost, CostKind, register_cost
from slimvox.structures import Block, Term, structures
from slimvox.structures.anatomy import SAMPLE_RATE_HZ, EncoderAnatomy
from slimvox.util.quantities import short_number

SECONDS = 10.0
"""Length of the clip that MACs are reported for."""


@dataclass(frozen=True)
class Parameters(Cost):
    """Parameters as stored: weight norm folded, no mask embedding.

    `transformers` counts two more: the mask embedding (`width`) that only pre-training uses, and the magnitudes of the
    positional convolution's weight norm (`position_kernel`).
    """

    kind = "params"

    def terms(self, anatomy: EncoderAnatomy) -> Iterator[Term]:
        """Terms of every structure, and of the parts that are never pruned."""
        width = anatomy.width
        yield Term(block=Block("projection"), coefficient=width)
        biases = anatomy.position_layers * width
        yield Term(block=Block("position"), coefficient=biases + 2 * width)
        if not anatomy.pre_norm:
            for index in range(len(anatomy.layers)):
                for kind in LAYER_BLOCKS:
                    yield Term(block=Block(kind, index), coefficient=2 * width)
        for structure in structures():
            for address in structure.addresses(anatomy):
                yield from structure.parameters(anatomy, address.index)

    def describe(self, cost: float) -> str:
        """Text such as `26.5M parameters`."""
        return f"{short_number(cost)} parameters"


@dataclass(frozen=True)
class Macs(Cost):
    """Multiply-accumulates for one clip.

    Matrix products and convolutions are counted; norms, activations, softmax and bias additions are not (under 1 % of
    the work), as in the counters of fvcore, DeepSpeed and torch's `FlopCounterMode` (which counts twice as many: one
    for the product and one for the sum).
    """

    seconds: float = SECONDS
    """Length of the clip in seconds, at 16 kHz."""

    kind = "macs"

    def __post_init__(self) -> None:
        if not 0 < self.seconds < math.inf:
            raise ValueError(f"`seconds` must be finite and above 0, but is {self.seconds:g} instead")

    def terms(self, anatomy: EncoderAnatomy) -> Iterator[Term]:
        """Terms of every structure; no other part has MACs."""
        lengths = anatomy.conv_lengths(round(self.seconds * SAMPLE_RATE_HZ))
        for structure in structures():
            for address in structure.addresses(anatomy):
                yield from structure.macs(anatomy, address.index, lengths)

    def describe(self, cost: float) -> str:
        """Text such as `15G MACs`, with the length of the clip if it is not 10 s."""
        clip = "" if self.seconds == SECONDS else f" for {self.seconds:g} s of audio"
        return f"{short_number(cost)} MACs{clip}"

    def to_dict(self) -> dict[str, Any]:
        """Kind and length of the clip."""
        return {"kind": self.kind, "seconds": self.seconds}


def _read_macs(data: Mapping[str, Any]) -> Macs:
    return Macs(float(data["seconds"]))


register_cost(
    CostKind(
        name="params",
        title="parameters, as stored",
        prepare=lambda context: Parameters(),
        from_dict=lambda data: Parameters(),
    )
)
register_cost(
    CostKind(
        name="macs",
        title="multiply-accumulates of a clip of `target.seconds`",
        prepare=lambda context: Macs(context.seconds),
        from_dict=_read_macs,
    )
)


def parameters(anatomy: EncoderAnatomy) -> int:
    """Number of parameters of an encoder, as stored: equals `sum(p.numel() for p in encoder.parameters())`."""
    return Parameters().of(anatomy)


def macs(anatomy: EncoderAnatomy, seconds: float = SECONDS) -> int:
    """Multiply-accumulates for one clip of `seconds` seconds."""
    return Macs(seconds).of(anatomy)
