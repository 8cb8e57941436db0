"""Scores with confidence intervals, and the paired comparison of two models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slimvox.evaluation.comparable import check_same
from slimvox.evaluation.intervals import Estimate, Score, estimate, score_of, weighted
from slimvox.evaluation.outcomes import Outcomes
from slimvox.evaluation.points import FixedRows
from slimvox.evaluation.results import YARDSTICK, TaskResult


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A metric of two models, or their points over all tasks."""

    task: str
    """Name of the task; empty for the points."""
    title: str
    percent: bool
    higher_is_better: bool
    first: float
    second: float
    difference: Estimate
    """First - second. The error is not a number if the results hold no outcomes."""

    @property
    def verdict(self) -> str:
        """Plain words: identical, within noise, better or worse."""
        if self.difference.error != self.difference.error:
            return "interval unknown"
        if self.difference.error == self.difference.value == 0:
            return "identical"
        if not self.difference.certain:
            return "within noise"
        return "better" if (self.difference.value > 0) == self.higher_is_better else "worse"

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON types."""
        known = self.difference.error == self.difference.error
        return {
            "task": self.task,
            "metric": self.title,
            "first": self.first,
            "second": self.second,
            "difference": self.difference.value,
            "half_width": self.difference.half_width if known else None,
            "p": self.difference.p if known else None,
            "verdict": self.verdict,
        }


def check_comparable(named: Mapping[str, Sequence[TaskResult]]) -> None:
    """Check that the results of each task are of the same data and protocol.

    Args:
        named: results of each model, by its name.

    Raises:
        SlimvoxError: with what differs.
    """
    seen: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for name, results in named.items():
        for result in results:
            first = seen.setdefault(result.task, (name, result.configuration))
            check_same(result.task, first, (name, result.configuration))


def metric_score(result: TaskResult, metric: str, other: TaskResult | None = None) -> Score:
    """A metric with its deviations, or the difference from another model's result of the same task."""
    value = result.scores[metric]["mean"] - (0.0 if other is None else other.scores[metric]["mean"])
    outcomes = [each and each.outcomes.get(metric) for each in (result, other)]
    if outcomes[0] is None or (other is not None and outcomes[1] is None):
        return value, {}
    mine, theirs = (each and Outcomes(**each) for each in outcomes)
    assert mine
    return score_of(result.task, mine, value, other=theirs or None)


def points_score(
    results: Sequence[TaskResult], fixed: FixedRows, others: Sequence[TaskResult] = ()
) -> Score | None:
    """The `mini` score with its deviations, or its difference from another model's; None if a task is missing."""
    worth = fixed.points_per_unit()
    by_task = {result.task: result for result in others}
    found = {
        metric: metric_score(result, metric, by_task.get(result.task))
        for result in results
        for metric in result.scores
        if metric in worth and (not others or result.task in by_task)
    }
    if worth.keys() - found.keys():
        return None
    low = 0.0 if others else -sum(factor * fixed.fbank[metric] for metric, factor in worth.items())
    total = weighted([(factor, found[metric]) for metric, factor in worth.items()], low)
    return total if all(deviations for _, deviations in found.values()) else (total[0], {})


def differences(
    first: Sequence[TaskResult], second: Sequence[TaskResult], fixed: FixedRows | None
) -> tuple[Difference, ...]:
    """Compare two models metric by metric, and by points if every task that counts is there.

    Raises:
        SlimvoxError: if a task was scored on other data or with another protocol.
    """
    check_comparable({"the first model": first, "the second": second})
    by_task = {result.task: result for result in second}
    found = [
        Difference(
            task=result.task,
            title=score["title"],
            percent=score["percent"],
            higher_is_better=score["higher_is_better"],
            first=score["mean"],
            second=by_task[result.task].scores[metric]["mean"],
            difference=estimate(metric_score(result, metric, by_task[result.task])),
        )
        for result in first
        if result.task in by_task
        for metric, score in result.scores.items()
    ]
    own = other = both = None
    if fixed is not None and all(
        result.configuration.get("yardstick") == YARDSTICK for result in (*first, *second)
    ):
        own, other = points_score(first, fixed), points_score(second, fixed)
        both = points_score(first, fixed, second)
    if own is not None and other is not None and both is not None:
        found.append(
            Difference(
                task="",
                title="points",
                percent=True,
                higher_is_better=True,
                first=own[0],
                second=other[0],
                difference=estimate(both),
            )
        )
    return tuple(found)
