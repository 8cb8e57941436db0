"""Computing time by block as a function of counts, with coefficients measured on one machine."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from slimvox.costs import BLOCK_KINDS, LAYER_BLOCKS, Cost
from slimvox.structures import Block, Term, structures
from slimvox.structures.anatomy import SAMPLE_RATE_HZ, EncoderAnatomy
from slimvox.structures.units import units
from slimvox.util.errors import SlimvoxError
from slimvox.util.validation import Count, Positive, PositiveOrZero, build, check_fields

TORCH = "torch"
"""Runtime of an encoder as it is, in float32."""
MOST_ERROR = 0.3
"""Median relative error above which a table is not kept, because another program ran while it was measured."""
PRIOR_WEIGHT = 0.1
"""Weight of a prior, relative to a measurement (see `fit_times`)."""
LEAST_SHARE = 0.02
"""A coefficient whose prior makes up less than this share of the time may deviate as if it made up this share. A prior
of 0 says that a part could not be told from others, not that it takes no time."""
FIXED = tuple(Block(kind) for kind in BLOCK_KINDS if kind not in LAYER_BLOCKS)
"""Blocks that take time even if nothing is left in them; blocks of layers are not, since they are structures."""


@dataclass(frozen=True, kw_only=True)
class LatencyTable(Cost):
    """Nanoseconds of each block for one clip.

    Each structure gives the features that its time is proportional to (`Structure.times`); the table has the
    nanoseconds per unit of each feature. All layers share their coefficients.
    """

    kind = "latency"

    seconds: Positive
    """Length of the clip in seconds."""
    device: str
    """Device it was measured on, such as `cpu`."""
    threads: Count
    """Number of CPU threads."""
    nanoseconds: Mapping[str, Mapping[str, PositiveOrZero]]
    """Coefficients by kind of block and feature; `constant` does not depend on counts."""
    rest: PositiveOrZero
    """Nanoseconds outside all blocks: norms, residual sums, calls; in runtimes other than torch, of all that the layers
    share."""
    error: PositiveOrZero
    """Median relative error of the predicted speed-up over the dense encoder, of whole encoders that were not used in
    the fit."""
    runtime: str = TORCH
    """Runtime it was measured in: a backend of `slimvox benchmark`."""
    dense: PositiveOrZero = 0.0
    """Measured nanoseconds of the dense encoder; 0 if only the coefficients are known."""
    hardware: str = ""
    """Name of the processor or GPU that it was measured on; empty if unknown."""

    def __post_init__(self) -> None:
        try:
            check_fields(self)
        except SlimvoxError as error:
            raise ValueError(f"invalid latency table: {error}") from error
        if not any(value for features in self.nanoseconds.values() for value in features.values()):
            raise ValueError("invalid latency table: a block must take some time, but all take none")

    def terms(self, anatomy: EncoderAnatomy) -> Iterator[Term]:
        """Features times their measured nanoseconds."""
        yield Term(block=Block("position"), coefficient=self.rest)
        for term in time_features(anatomy, self.seconds):
            nanoseconds = self.nanoseconds.get(term.block.kind, {}).get(term.feature, 0.0)
            yield replace(term, coefficient=term.coefficient * nanoseconds)

    def describe(self, cost: float) -> str:
        """Text such as `12.3 ms for 10 s of audio`."""
        place = "" if self.runtime == TORCH else f" in {self.runtime}"
        return f"{milliseconds(cost)} for {self.seconds:g} s of audio{place}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"kind": self.kind, **asdict(self)}

    @property
    def place(self) -> str:
        """Text such as `openvino-int8, 2 threads of AMD EPYC`."""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        hardware = self.hardware or self.device
        return (
            f"{self.runtime}, {threads} of {hardware}"
            if self.device == "cpu"
            else f"{self.runtime}, {hardware}"
        )

    def summary(self, dense: EncoderAnatomy) -> str:
        """A line about the dense encoder's time, the place and the accuracy, with a warning if it is low."""
        line = (
            f"dense: {milliseconds(self.of_dense(dense))} for {self.seconds:g} s of audio in {self.place}; the"
            f" predicted speed-ups of encoders that were not used for the table are off by {self.error:.0%} (median)"
        )
        if self.error <= MOST_ERROR:
            return line
        return f"{line}: the machine was probably busy when it was measured, so the target may be missed"

    def of_dense(self, anatomy: EncoderAnatomy) -> int:
        """Measured nanoseconds of the dense encoder, if there are any, instead of predicted ones."""
        return round(self.dense) or self.of(anatomy)

    def scaled_to(self, times: Sequence[tuple[EncoderAnatomy, float]]) -> LatencyTable:
        """The table for encoders that are pruned like some others, with the measured time of the dense one.

        Widths that are left by pruning are computed more slowly, for their size, than those of the dense encoder, which
        are multiples of 16. A fit to both predicts speed-ups that are too large.

        Args:
            times: anatomies and nanoseconds of encoders that were timed side by side; the first is the dense one.
        """
        (_, dense), *others = times
        scale = median(time / self.of(anatomy) for anatomy, time in others)
        return replace(
            self,
            dense=dense,
            rest=scale * self.rest,
            nanoseconds={
                kind: {feature: scale * value for feature, value in features.items()}
                for kind, features in self.nanoseconds.items()
            },
        )

    def speed_up_error(self, times: Sequence[tuple[EncoderAnatomy, float]]) -> float:
        """Median relative error of the predicted speed-ups over the dense encoder; for `times` see `scaled_to`."""
        (whole, dense), *others = times
        return median(
            abs(self.of_dense(whole) / self.of(anatomy) * time / dense - 1) for anatomy, time in others
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LatencyTable:
        """The reverse of `to_dict`.

        Raises:
            ValueError: if a time is missing, negative or not finite.
        """
        try:
            table: LatencyTable = build(cls, {name: value for name, value in data.items() if name != "kind"})
        except SlimvoxError as error:
            raise ValueError(f"invalid latency table: {error}") from error
        return table


def check_clip(
    dense: EncoderAnatomy, seconds: float, name: str = "the clip to measure computing times on"
) -> None:
    """Raise SlimvoxError, with the name of the length, if an encoder cannot encode clips of a length."""
    shortest = dense.receptive_field / SAMPLE_RATE_HZ
    longest = math.inf if dense.most_samples is None else dense.most_samples / SAMPLE_RATE_HZ
    if not shortest <= seconds <= longest or seconds == math.inf:
        limit = "" if longest == math.inf else f" and at most {longest:g} s"
        raise SlimvoxError(
            f"{name} must be finite and at least {shortest:g} s, one frame{limit}, but is {seconds:g} s instead"
        )


def milliseconds(nanoseconds: float) -> str:
    """Text such as `12.3 ms`, with three digits or more."""
    value = nanoseconds / 1e6
    return f"{value:.3g} ms" if value < 1000 else f"{value:,.0f} ms"


def time_features(anatomy: EncoderAnatomy, seconds: float) -> Iterator[Term]:
    """Terms to which computing time is proportional, by block and feature."""
    lengths = anatomy.conv_lengths(round(seconds * SAMPLE_RATE_HZ))
    for block in FIXED:
        yield Term(block=block, coefficient=1, feature="constant")
    for structure in structures():
        for address in structure.addresses(anatomy):
            yield from structure.times(anatomy, address.index, lengths)


def feature_values(anatomy: EncoderAnatomy, seconds: float) -> dict[Block, dict[str, float]]:
    """The features of each block at the counts of an encoder."""
    counts = units(anatomy).sizes
    values: dict[Block, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for term in time_features(anatomy, seconds):
        values[term.block][term.feature] += term.at(counts)
    return {block: dict(features) for block, features in values.items()}


def fit_times(
    terms: Sequence[Sequence[float]], times: Sequence[float], prior: Sequence[float] | None = None
) -> tuple[float, ...]:
    """Coefficients of the terms, fitted to times by non-negative least squares of the relative errors.

    With a prior this is a ridge regression towards it: each coefficient's relative deviation from the prior, which is
    scaled to the times, counts as much as `PRIOR_WEIGHT` of a measurement's relative error. Coefficients that the
    measurements do not determine then keep the proportions of the prior.

    Args:
        terms: measurements x terms.
        times: one positive number per measurement.
        prior: one coefficient per term, each at least 0, that predict some time for most measurements.

    Returns:
        One coefficient per term, each at least 0.

    Raises:
        ValueError: if a time is not finite and positive, a term is not finite, or the prior predicts no time.
    """
    if not all(0 < each < math.inf for each in times) or not np.isfinite(np.asarray(terms)).all():
        raise ValueError("times must be finite and positive, and terms finite")
    from scipy.optimize import nnls

    design = np.asarray(terms, dtype=np.float64) / np.asarray(times, dtype=np.float64)[:, None]
    wanted = np.ones(len(design))
    if prior is not None:
        expected = np.asarray(prior, dtype=np.float64)
        scale_of_prior = np.median(design @ expected)
        if not scale_of_prior > 0:
            raise ValueError("a prior must predict some time for most measurements")
        expected = expected / scale_of_prior
        width = np.maximum(expected, LEAST_SHARE / np.maximum(design.mean(0), 1e-300))
        design = np.vstack([design, np.diag(PRIOR_WEIGHT / width)])
        wanted = np.concatenate([wanted, PRIOR_WEIGHT * expected / width])
    # Columns are scaled to the same norm, because the terms differ by many orders of magnitude.
    scale = np.maximum(np.abs(design).max(0), 1e-300)
    solution, _ = nnls(design / scale, wanted)
    return tuple(float(value) for value in solution / scale)
