"""One number for a model: `superb_s` and `mean11` of official SUPERB, and `mini`, of the same form, for mini-SUPERB.

superb_s = 1000 x mean over the ten tasks of (x - low) / (high - low), where low is the filter bank's score and high
that of the best model when the score was made; slot filling's two metrics are averaged first. mean11 = mean of the
eleven metrics, error rates as 100 - x and the term-weighted value as 100 x. `mini` takes low and high from the same
data as x: there `fbank` is 0 and the embedded teacher 1000. A `mini` score and a `superb_s` are not comparable.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slimvox.evaluation.published import Scale, superb_scale
from slimvox.evaluation.tasks import SUPERB
from slimvox.util.errors import SlimvoxError

METRICS_OF: Mapping[str, tuple[str, ...]] = {
    task.name: tuple(metric.name for metric in task.metrics) for task in SUPERB
}
"""The metrics of each task of SUPERB."""
_BY_NAME = {metric.name: metric for task in SUPERB for metric in task.metrics}
METRICS = tuple(_BY_NAME)
"""The eleven metrics that count."""
ERROR_RATES = frozenset(name for name, metric in _BY_NAME.items() if not metric.higher_is_better)
"""Metrics for which lower is better."""


def task_points(scores: Mapping[str, float], scale: Scale) -> dict[str, float]:
    """Points of each task: 0 at the scale's low, 1000 at its high, and beyond either where a model is.

    Only tasks of which all metrics are given are in the result.

    Raises:
        SlimvoxError: if a task's two ends are equal (it then tells nothing apart), or a name is no metric.
    """
    unknown = sorted(set(scores) - set(METRICS))
    if unknown:
        raise SlimvoxError(f"`{unknown[0]}` is no metric; there are {', '.join(METRICS)}")
    points = {}
    for task, metrics in METRICS_OF.items():
        if all(metric in scores for metric in metrics):
            points[task] = 1000 * sum(_share(scores, scale, metric) for metric in metrics) / len(metrics)
    return points


def scaled_score(scores: Mapping[str, float], scale: Scale) -> float:
    """Mean points of all ten tasks.

    Raises:
        SlimvoxError: if a metric is missing: a mean over fewer tasks is another number, and not comparable.
    """
    _check_complete(scores)
    return sum(task_points(scores, scale).values()) / len(METRICS_OF)


def superb_s(scores: Mapping[str, float]) -> float:
    """`superb_s` of scores measured on official SUPERB data; published rounded to an integer.

    Args:
        scores: metric to value, see `METRICS`.

    Raises:
        SlimvoxError: if a metric is missing or unknown.
    """
    return scaled_score(scores, superb_scale())


@dataclass(frozen=True, kw_only=True)
class FixedRows:
    """Reference scores that define 0 and 1000 points of the `mini` score."""

    fbank: Mapping[str, float]
    """Metric to value: 0 points."""
    teacher: Mapping[str, float]
    """The embedded teacher's: 1000 points."""
    tasks: tuple[str, ...] = tuple(METRICS_OF)
    """Tasks that count: those whose two reference scores differ by more than the spread over the heads' seeds."""


def mini_score(scores: Mapping[str, float], fixed: FixedRows) -> float:
    """The same form on mini-SUPERB, over the tasks that the fixed rows tell apart.

    Raises:
        SlimvoxError: if a metric of those tasks is missing in one of the three, unknown, or equal in the fixed rows.
    """
    metrics = counted_metrics(fixed.tasks)
    for row in (scores, fixed.fbank, fixed.teacher):
        _check_complete(row, metrics)
    points = task_points(
        {metric: scores[metric] for metric in metrics}, Scale(low=fixed.fbank, high=fixed.teacher)
    )
    return sum(points.values()) / len(points)


def counted_metrics(tasks: Sequence[str]) -> tuple[str, ...]:
    """The metrics of some tasks."""
    return tuple(metric for task in tasks for metric in METRICS_OF[task])


def tasks_told_apart(
    fbank: Mapping[str, Sequence[float]], teacher: Mapping[str, Sequence[float]]
) -> tuple[str, ...]:
    """The tasks in which the teacher is ahead by more than twice what seeds change, in each of their metrics.

    Where it is not, the distance between the rows is chance, and to divide by it would let chance decide the score.

    Args:
        fbank: metric to the values of the seeds.
        teacher: the same.
    """
    told = []
    for task, metrics in METRICS_OF.items():
        if all(_ahead(fbank[metric], teacher[metric], metric) for metric in metrics):
            told.append(task)
    return tuple(told)


def mean11(scores: Mapping[str, float]) -> float:
    """Mean of the eleven metrics, error rates as 100 - x and the term-weighted value x 100; published to one decimal.

    Raises:
        SlimvoxError: if a metric is missing.
    """
    _check_complete(scores)
    return sum(metric.goodness(scores[name]) for name, metric in _BY_NAME.items()) / len(_BY_NAME)


def _share(scores: Mapping[str, float], scale: Scale, metric: str) -> float:
    low, high = scale.low[metric], scale.high[metric]
    if low == high:
        raise SlimvoxError(
            f"`{metric}` is {low:g} in both fixed rows of the scale, so no score can be placed between them"
        )
    return (scores[metric] - low) / (high - low)


def _ahead(low: Sequence[float], high: Sequence[float], metric: str) -> bool:
    sign = -1 if metric in ERROR_RATES else 1
    changes = sum(statistics.variance(values) if len(values) > 1 else 0.0 for values in (low, high))
    return sign * (statistics.fmean(high) - statistics.fmean(low)) > 2 * math.sqrt(changes)


def _check_complete(scores: Mapping[str, float], metrics: Sequence[str] = METRICS) -> None:
    missing = [metric for metric in metrics if metric not in scores]
    if missing:
        raise SlimvoxError(f"a score over all tasks needs all metrics, but there is no {', '.join(missing)}")
