"""MTWV, the maximum term-weighted value of spoken term detection (NIST STD 2006; MediaEval's QUESST 2014).

For one threshold on all scores, TWV = 1 - mean over queries of (P_miss + beta P_false_alarm), with
beta = C_fa / C_miss (1 - P_target) / P_target. QUESST takes P_target = 0.0008, C_fa = 1 and C_miss = 100, so beta is
12.49 (the effective prior 0.0741 that its scoring tool is given is the same three numbers in one).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class DetectionCosts:
    """Costs of errors; the defaults are QUESST 2014's."""

    target_prior: float = 0.0008
    """Prior probability that a query is in a document."""
    miss: float = 100.0
    false_alarm: float = 1.0

    @property
    def beta(self) -> float:
        """Weight of the false-alarm rate relative to the miss rate."""
        return self.false_alarm / self.miss * (1 - self.target_prior) / self.target_prior


QUESST_COSTS = DetectionCosts()


@dataclass(frozen=True, kw_only=True)
class TermWeightedValue:
    """The maximum term-weighted value over thresholds."""

    value: float
    """Term-weighted value, from 0 (nothing accepted) to 1."""
    threshold: float
    """Scores at or above it are accepted; infinite if nothing should be."""
    of_queries: tuple[float, ...]
    """Term-weighted value of each query that occurs, at that threshold."""


def maximum_term_weighted_value(
    scores: npt.ArrayLike,
    matches: npt.ArrayLike,
    *,
    costs: DetectionCosts = QUESST_COSTS,
    unscored_queries: int = 0,
    unscored_documents: int = 0,
) -> TermWeightedValue:
    """Maximum term-weighted value. Queries that occur nowhere are left out.

    Args:
        scores: (queries, documents), finite; higher means more likely to occur. They are compared across queries, so
            they should have been normalised per query.
        matches: (queries, documents), true where the query occurs.
        costs: of the two errors.
        unscored_queries: further queries with at least one occurrence, for which nothing is ever accepted.
        unscored_documents: further documents in which no scored query occurs, and in which none is ever accepted. With
            the two, QUESST's scorer counts the parts of its data that a system leaves out, as SUPERB, which
            searches only the English part, does.

    Raises:
        ValueError: if the shapes differ, a score is not finite, or no query occurs in any document.
    """
    values, occurs = np.asarray(scores, dtype=np.float64), np.asarray(matches, dtype=bool)
    if values.ndim != 2 or values.shape != occurs.shape:
        raise ValueError(
            f"`scores` and `matches` must be (queries, documents), but are {values.shape}, {occurs.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError("`scores` must be finite")
    occurring = occurs.any(axis=1)
    if not occurring.any():
        raise ValueError("no query occurs in any document, so there is nothing to find")
    values, occurs = values[occurring], occurs[occurring]
    targets = occurs.sum(axis=1, keepdims=True)
    others = np.maximum(occurs.shape[1] + unscored_documents - targets, 1)
    gains = np.where(occurs, 1 / targets, -costs.beta / others)
    distinct, place = np.unique(-values.ravel(), return_inverse=True)
    totals = np.cumsum(np.bincount(place.ravel(), weights=gains.ravel()))
    best = int(totals.argmax())
    if totals[best] <= 0:
        return TermWeightedValue(value=0.0, threshold=float("inf"), of_queries=(0.0,) * len(values))
    return TermWeightedValue(
        value=float(totals[best]) / (len(values) + unscored_queries),
        threshold=-float(distinct[best]),
        of_queries=tuple(np.where(-values <= distinct[best], gains, 0.0).sum(1).tolist()),
    )
