"""One number for a model: `superb_s` and `mean11` of official SUPERB, and `mini`, of the same form, for mini-SUPERB.

superb_s = 1000 x mean over the ten tasks of (x - low) / (high - low). Here low is the filter bank's score, and high
that of the best model at the time when the score was defined; slot filling's two metrics are averaged first. mean11 =
mean of the eleven metrics, error rates as 100 - x and the term-weighted value as 100 x. `mini` takes low and high from
the same data as x: there `fbank` is 0 and the embedded teacher 1000. A `mini` score and a `superb_s` are not
comparable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Values of each metric that count as 0 and as 1000 points."""

    low: Mapping[str, float]
    high: Mapping[str, float]


SUPERB_SCALE = Scale(
    low={
        "pr": 82.01,
        "asr": 23.18,
        "ks": 41.38,
        "qbe": 0.0058,
        "sid": 20.06,
        "asv": 9.56,
        "sd": 10.05,
        "ic": 9.65,
        "sf_f1": 69.64,
        "sf_cer": 52.94,
        "er": 48.24,
    },
    high={
        "pr": 3.53,
        "asr": 3.62,
        "ks": 96.66,
        "qbe": 0.0736,
        "sid": 90.33,
        "asv": 5.11,
        "sd": 5.62,
        "ic": 98.76,
        "sf_f1": 89.81,
        "sf_cer": 21.76,
        "er": 67.62,
    },
)
"""Fixed rows of `superb_s`: `fbank`, and the best models when the score was made (the SUPERB leaderboard; Yang et al.,
"SUPERB: Speech processing Universal PERformance Benchmark", Interspeech 2021)."""


def task_points(scores: Mapping[str, float], scale: Scale) -> dict[str, float]:
    """Points of each task: 0 at the low value of the scale, 1000 at the high value, extrapolated beyond both.

    Only tasks of which all metrics are given are in the result.

    Raises:
        SlimvoxError: if the two ends of a task are equal, or a name is not a metric.
    """
    unknown = sorted(set(scores) - set(METRICS))
    if unknown:
        raise SlimvoxError(f"`{unknown[0]}` is not a metric; there are {', '.join(METRICS)}")
    points = {}
    for task, metrics in METRICS_OF.items():
        if all(metric in scores for metric in metrics):
            points[task] = 1000 * sum(_share(scores, scale, metric) for metric in metrics) / len(metrics)
    return points


def scaled_score(scores: Mapping[str, float], scale: Scale) -> float:
    """Mean points of all ten tasks.

    Raises:
        SlimvoxError: if a metric is missing, since a mean over fewer tasks would not be comparable.
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
    return scaled_score(scores, SUPERB_SCALE)


@dataclass(frozen=True, kw_only=True)
class FixedRows:
    """Reference scores that define 0 and 1000 points of the `mini` score."""

    fbank: Mapping[str, float]
    """Values by metric that give 0 points."""
    teacher: Mapping[str, float]
    """Values of the embedded teacher, which give 1000 points."""
    weights: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(METRICS_OF, 1.0))
    """Weights of the tasks that count, proportional to how precisely each is measured."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that count."""
        return tuple(self.weights)

    def points_per_unit(self) -> dict[str, float]:
        """Points of the `mini` score that a unit of each metric is worth.

        Raises:
            SlimvoxError: if the two reference scores of a metric are equal.
        """
        total = sum(self.weights.values())
        scale = Scale(low=self.fbank, high=self.teacher)
        return {
            metric: 1000 * weight / total / len(METRICS_OF[task]) / _range(scale, metric)
            for task, weight in self.weights.items()
            for metric in METRICS_OF[task]
        }


def mini_score(scores: Mapping[str, float], fixed: FixedRows) -> float:
    """Weighted mean of the points of the tasks of mini-SUPERB that count: 0 for `fbank`, 1000 for the embedded teacher.

    Raises:
        SlimvoxError: if a metric of those tasks is missing in one of the three, unknown, or equal in the fixed rows.
    """
    metrics = counted_metrics(fixed.tasks)
    for row in (scores, fixed.fbank, fixed.teacher):
        _check_complete(row, metrics)
    worth = fixed.points_per_unit()
    return sum(worth[metric] * (scores[metric] - fixed.fbank[metric]) for metric in metrics)


def counted_metrics(tasks: Sequence[str]) -> tuple[str, ...]:
    """The metrics of some tasks."""
    return tuple(metric for task in tasks for metric in METRICS_OF[task])


def mean11(scores: Mapping[str, float]) -> float:
    """Mean of the eleven metrics, error rates as 100 - x and the term-weighted value x 100; published to one decimal.

    Raises:
        SlimvoxError: if a metric is missing.
    """
    _check_complete(scores)
    return sum(metric.goodness(scores[name]) for name, metric in _BY_NAME.items()) / len(_BY_NAME)


def _share(scores: Mapping[str, float], scale: Scale, metric: str) -> float:
    return (scores[metric] - scale.low[metric]) / _range(scale, metric)


def _range(scale: Scale, metric: str) -> float:
    low, high = scale.low[metric], scale.high[metric]
    if low == high:
        raise SlimvoxError(
            f"`{metric}` is {low:g} in both fixed rows of the scale, so no score can be placed between them"
        )
    return high - low


def _check_complete(scores: Mapping[str, float], metrics: Sequence[str] = METRICS) -> None:
    missing = [metric for metric in metrics if metric not in scores]
    if missing:
        raise SlimvoxError(f"a score over all tasks needs all metrics, but there is no {', '.join(missing)}")
