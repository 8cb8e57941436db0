"""Computing time by block as a function of sizes, with what was measured on one machine in it."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slimvox.anatomy import SAMPLE_RATE_HZ, EncoderAnatomy
from slimvox.cost import BlockCosts, EncoderSizes, LayerSizes, Number, sizes_of

COEFFICIENTS = {"front_end": 4, "projection": 2, "attention": 3, "feed_forward": 2}
"""Number of coefficients of each list of a table: that of its terms."""


@dataclass(frozen=True, kw_only=True)
class LatencyTable:
    """Nanoseconds of each block for one clip, linear in every single size like `slimvox.cost`.

    Linear in each size means that the formulas hold for expected sizes too, so that gates can be trained against
    them. Every list of coefficients belongs to the terms of the function of the same name below.
    """

    seconds: float
    """Length of the clip in seconds."""
    device: str
    """Where it was measured, such as `cpu`."""
    threads: int
    """How many threads computed (CPU)."""
    front_end: tuple[float, ...]
    """Of `front_end_terms`."""
    projection: tuple[float, ...]
    """Of `projection_terms`."""
    attention: tuple[float, ...]
    """Of `attention_terms`."""
    feed_forward: tuple[float, ...]
    """Of `feed_forward_terms`."""
    position: float
    """Positional convolution and position bias table."""
    rest: float
    """All that pruning does not change: norms, residual sums, calls."""
    error: float
    """How far the table was from whole encoders that it had not seen: median share of their measured time."""

    def __post_init__(self) -> None:
        problems = [
            f"`{name}` must be {count} finite numbers of at least 0, but is {getattr(self, name)!r} instead"
            for name, count in COEFFICIENTS.items()
            if not _are_times(getattr(self, name), count)
        ]
        problems += [
            f"`{name}` must be a finite number of at least 0, but is {getattr(self, name)!r} instead"
            for name in ("position", "rest", "error")
            if not _is_time(getattr(self, name))
        ]
        if not _is_time(self.seconds) or self.seconds == 0:
            problems.append(f"`seconds` must be a finite number above 0, but is {self.seconds!r} instead")
        if type(self.threads) is not int or self.threads < 1:
            problems.append(f"`threads` must be an integer of at least 1, but is {self.threads!r} instead")
        if not problems and not any(map(sum, (self.front_end, self.attention, self.feed_forward))):
            problems.append("a block must take some time, but all take none")
        if problems:
            raise ValueError("invalid latency table: " + "; ".join(problems))

    def costs(self, anatomy: EncoderAnatomy, sizes: EncoderSizes | None = None) -> BlockCosts:
        """Nanoseconds by block.

        Args:
            anatomy: gives kernels, strides and width, and the sizes where `sizes` is None.
            sizes: counts or expectations to use instead.
        """
        sizes = sizes or sizes_of(anatomy)
        return BlockCosts(
            front_end=_weighted(front_end_terms(anatomy, sizes.channels, self.seconds), self.front_end),
            projection=_weighted(projection_terms(sizes.channels[-1]), self.projection),
            position=self.position + self.rest,
            attention=tuple(_weighted(attention_terms(layer), self.attention) for layer in sizes.layers),
            feed_forward=tuple(
                _weighted(feed_forward_terms(layer), self.feed_forward) for layer in sizes.layers
            ),
        )

    def nanoseconds(self, anatomy: EncoderAnatomy) -> int:
        """Predicted computing time of an encoder."""
        total = self.costs(anatomy).total
        return round(float(total))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LatencyTable:
        """The reverse of `to_dict`. Raises `ValueError` (or `TypeError`) for anything else."""
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
        }
        return cls(**fields)


def front_end_terms(
    anatomy: EncoderAnatomy, channels: Sequence[Number], seconds: float
) -> tuple[Number, ...]:
    """A constant; values put out by the first and by the later convolutions; multiply-accumulates of the later ones.

    The first convolution reads one channel, so its work grows like its output. Norms and GELUs cost by the number of
    their values.
    """
    lengths = anatomy.conv_lengths(round(seconds * SAMPLE_RATE_HZ))
    first = channels[0] * lengths[0]
    work: Number = 0
    values: Number = 0
    for index in range(1, len(channels)):
        work = work + channels[index - 1] * channels[index] * (
            anatomy.convolutions[index].kernel * lengths[index]
        )
        values = values + channels[index] * lengths[index]
    return (1, first, values, work)


def projection_terms(channels: Number) -> tuple[Number, ...]:
    """A constant and the front end's channels."""
    return (1, channels)


def attention_terms(layer: LayerSizes) -> tuple[Number, ...]:
    """Whether the block is there, its heads, and its query and value dimensions (two projections each)."""
    return (layer.attention, layer.heads, layer.qk + layer.vo)


def feed_forward_terms(layer: LayerSizes) -> tuple[Number, ...]:
    """Whether the block is there, and its width."""
    return (layer.feed_forward, layer.intermediate)


def _weighted(terms: Sequence[Number], coefficients: Sequence[float]) -> Number:
    products = (term * factor for term, factor in zip(terms, coefficients, strict=True))
    return functools.reduce(lambda a, b: a + b, products)


def _is_time(value: object) -> bool:
    """Whether a value is a number that a duration can be."""
    return type(value) in (int, float) and 0 <= value < math.inf  # type: ignore[operator]


def _are_times(values: object, count: int) -> bool:
    return isinstance(values, tuple) and len(values) == count and all(map(_is_time, values))
