"""Confidence intervals of scores and of their differences, by bootstrap over speakers, clips and seeds of the heads.

Each source of test examples (a speaker, or a clip of an unknown speaker) gets a random weight, which is the same in all
tasks, and each metric is computed again (Rubin, "The Bayesian bootstrap", Annals of Statistics 9, 1981). The seeds of a
task's heads are weighted in the same way. The deviations of the two are added; those of n sources are enlarged by
sqrt((n + 1) / (n - 1)), and the interval is that of Student's t distribution with the degrees of freedom of Welch and
Satterthwaite. Two models are compared under the same weights, so the difficulty of a clip that is hard for both
cancels.

The interval covers the variation from other test speakers and clips and from other seeds. It does not cover that from
other training data of the heads, which are the same for both models of a comparison.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from slimvox.evaluation.outcomes import Outcomes
from slimvox.util.errors import SlimvoxError

LEVEL = 0.95
DRAWS = 2000
_BLOCK = 512
"""Number of examples whose weights are in memory at once."""

Draws = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its standard error."""

    value: float
    error: float
    """Standard error."""
    degrees: float
    """Degrees of freedom of the standard error."""

    @property
    def half_width(self) -> float:
        """Half of the 95 % confidence interval."""
        if not self.error:
            return 0.0
        from scipy.special import stdtrit

        return float(stdtrit(self.degrees, (1 + LEVEL) / 2)) * self.error

    @property
    def p(self) -> float:
        """Two-sided probability of a value as far from 0 if the true one were 0."""
        if not self.error:
            return float(self.value == 0)
        from scipy.special import stdtr

        return float(2 * stdtr(self.degrees, -abs(self.value) / self.error))

    @property
    def certain(self) -> bool:
        """True if 0 lies outside the interval."""
        return abs(self.value) > self.half_width


@dataclass(frozen=True, kw_only=True)
class Deviations:
    """Changes of a score under the random weights of one kind of source."""

    draws: Draws
    """(draws,)."""
    count: int
    """Number of sources."""


Score = tuple[float, Mapping[str, Deviations]]
"""A value, and its deviations by what is resampled."""


def weighted(parts: Sequence[tuple[float, Score]], constant: float = 0.0) -> Score:
    """Sum of factor x score; deviations of one kind of source are added draw by draw."""
    total: dict[str, Deviations] = {}
    for factor, (_, deviations) in parts:
        for name, own in deviations.items():
            known = total.get(name)
            draws = factor * own.draws + (0 if known is None else known.draws)
            count = own.count if known is None else min(known.count, own.count)
            total[name] = Deviations(draws=draws, count=count)
    return constant + sum(factor * value for factor, (value, _) in parts), total


def estimate(score: Score) -> Estimate:
    """Value and standard error of a score."""
    value, deviations = score
    if not deviations:
        return Estimate(value=value, error=math.nan, degrees=math.nan)
    variance = float(np.var(sum(each.draws for each in deviations.values())))
    parts = [(float(np.var(each.draws)), max(each.count - 1, 1)) for each in deviations.values()]
    if variance == 0:
        return Estimate(value=value, error=0.0, degrees=math.inf)
    degrees = sum(each for each, _ in parts) ** 2 / sum(each**2 / count for each, count in parts)
    return Estimate(value=value, error=math.sqrt(variance), degrees=degrees)


def score_of(task: str, outcomes: Outcomes, value: float, *, other: Outcomes | None = None) -> Score:
    """A metric with its deviations, or the difference from another model's.

    Args:
        task: name of the task, whose seeds have weights of their own.
        outcomes: results by test example.
        value: the metric, or the difference of both.
        other: results of the other model, for the same examples and seeds.

    Returns:
        The value with its deviations; without any deviations, those of the seeds among them, if all examples are of
        one source, which says nothing about the spread between sources.

    Raises:
        SlimvoxError: if the two are of other examples or of other numbers of seeds.
    """
    if other is not None and (
        [*map(tuple, other.sources)] != [*map(tuple, outcomes.sources)]
        or len(other.values) != len(outcomes.values)
    ):
        raise SlimvoxError(f"{task}: the two models were scored on different examples or numbers of seeds")
    count = len({name for each in outcomes.sources for name in each})
    if count < 2:
        return value, {}
    models = [outcomes] if other is None else [outcomes, other]
    sums = _weighted_sums(
        outcomes.sources,
        np.stack([column for each in models for column in (np.mean(each.values, 0), each.sizes)], axis=1),
    )
    seeds = np.stack([_weights(f"seed {seed} of {task}") for seed in range(len(outcomes.values))])
    deviations = {
        kind: own
        for kind, own in _deviations(task, outcomes, sums[:2], seeds, count).items()
        if own.count > 1
    }
    mine = (0.0, deviations)
    if other is None:
        return value, deviations
    theirs = (0.0, _deviations(task, other, sums[2:], seeds, count))
    _, difference = weighted([(1.0, mine), (-1.0, theirs)])
    return value, {kind: difference[kind] for kind in deviations}


def _weighted_sums(sources: Sequence[Sequence[str]], columns: Draws) -> Draws:
    """Sums of columns (examples, columns) under the weights of the sources: (columns, draws)."""
    total = np.zeros((columns.shape[1], DRAWS))
    for first in range(0, len(sources), _BLOCK):
        block = slice(first, first + _BLOCK)
        weights = np.stack([functools.reduce(np.multiply, map(_weights, own)) for own in sources[block]])
        total += columns[block].T @ weights
    return total


def _deviations(
    task: str, outcomes: Outcomes, sums: Draws, seeds: Draws, sources: int
) -> dict[str, Deviations]:
    """Deviations under weights of the examples, by the weighted sums of values and sizes (2, draws), and under weights
    of the seeds (seeds, draws).
    """
    by_seed = outcomes.factor * np.asarray(outcomes.values).sum(1) / np.sum(outcomes.sizes)
    drawn = outcomes.factor * sums[0] / sums[1] - by_seed.mean()
    mixed = by_seed @ seeds / seeds.sum(0) - by_seed.mean()
    return {
        f"sources of {task}": Deviations(draws=_enlarged(drawn, sources), count=sources),
        f"seeds of {task}": Deviations(draws=_enlarged(mixed, len(by_seed)), count=len(by_seed)),
    }


def _enlarged(draws: Draws, count: int) -> Draws:
    """Deviations whose variance is that of the mean of n samples; that of random weights is (n - 1) / (n + 1) of it."""
    return draws * math.sqrt((count + 1) / max(count - 1, 1))


@functools.lru_cache(maxsize=4096)
def _weights(name: str) -> Draws:
    """Exponential weights (draws,) of a source, the same for each occurrence of its name."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).exponential(size=DRAWS)
