"""Test results by example: what intervals and paired comparisons are computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Counts = Sequence[tuple[float, float]]
"""(value, size) of each example, such as its edits and its number of words; a rate is the ratio of both sums."""


def rate(counts: Counts) -> float:
    """Sum of the values / sum of the sizes."""
    return sum(value for value, _ in counts) / sum(size for _, size in counts)


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """A metric by test example: factor x sum of `values` / sum of `sizes`, for each seed of the heads."""

    sources: Sequence[Sequence[str]]
    """Names of the speakers of each example; its own name if they are unknown. Examples of a source are not independent
    of each other."""
    sizes: Sequence[float]
    values: Sequence[Sequence[float]]
    """Values by seed."""
    factor: float = 100.0

    @staticmethod
    def of(sources: Sequence[Sequence[str]], counts: Sequence[Counts], *, factor: float = 100.0) -> Outcomes:
        """Outcomes from the counts of each seed."""
        return Outcomes(
            sources=tuple(tuple(each) for each in sources),
            sizes=tuple(float(size) for _, size in counts[0]),
            values=tuple(tuple(float(value) for value, _ in own) for own in counts),
            factor=factor,
        )

    @property
    def scores(self) -> tuple[float, ...]:
        """Value of the metric for each seed."""
        return tuple(self.factor * sum(own) / sum(self.sizes) for own in self.values)


def mean_of_folds(folds: Sequence[Outcomes]) -> Outcomes:
    """Outcomes of all folds together, so scaled that the metric is the mean over the folds."""
    total = sum(sum(fold.sizes) for fold in folds)
    factors = [total / len(folds) / sum(fold.sizes) for fold in folds]
    return Outcomes(
        sources=[source for fold in folds for source in fold.sources],
        sizes=[factor * size for fold, factor in zip(folds, factors, strict=True) for size in fold.sizes],
        values=[
            [factor * value for own, factor in zip(seed, factors, strict=True) for value in own]
            for seed in zip(*(fold.values for fold in folds), strict=True)
        ],
        factor=folds[0].factor,
    )
