"""Results of tasks, each a JSON file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimvox.evaluation.outcomes import Outcomes
from slimvox.evaluation.protocols import SuiteName
from slimvox.evaluation.tasks import task_names
from slimvox.util.errors import SlimvoxError
from slimvox.util.json_files import read_json_object
from slimvox.util.validation import CountOrZero, build

YARDSTICK = "mini-SUPERB 2"
"""Data and protocols of `mini`. Results without this entry are of version 1, and not comparable with later ones."""


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """One task's result; the content of its JSON file."""

    task: str
    configuration: Mapping[str, Any]
    """Everything the result depends on. A result is reused only if this is the same."""
    scores: Mapping[str, Mapping[str, Any]]
    """Scores by metric: mean, spread (sample standard deviation over the seeds; None for one), seeds, chance, title."""
    chance_is: str
    counts: Mapping[str, CountOrZero]
    """Number of examples used, by split, summed over folds."""
    skipped: Mapping[str, CountOrZero]
    """Number of examples left out, by reason, summed over folds."""
    chosen: Sequence[Mapping[str, Any]]
    """Choices made on dev, of each fold."""
    details: Sequence[Mapping[str, Any]]
    """Further facts about each fold, such as the layers' weights."""
    seconds: Mapping[str, float]
    """Seconds: encode, fit, total; and processor time, which other processes on the machine do not affect."""
    outcomes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Results by test example, by metric, see `outcomes.Outcomes`; empty in results of earlier versions."""
    reused: bool = False
    """True if the result existed already."""


@dataclass(frozen=True, kw_only=True)
class _Configuration:
    """Fields of a result's configuration that every reader relies on."""

    model: str
    model_fingerprint: str
    parameters: int
    suite: SuiteName
    yardstick: str | None = None
    data: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class _Score:
    """Fields of a metric's score that every reader relies on."""

    title: str
    percent: bool
    higher_is_better: bool
    mean: float
    spread: float | None
    seeds: Sequence[float]
    chance: float


def as_json(result: TaskResult) -> str:
    """Content of a result file; the outcomes, which are long lists of numbers, on one line."""
    content = dataclasses.asdict(result)
    del content["reused"]
    outcomes = json.dumps(content.pop("outcomes"), allow_nan=False)
    return f'{json.dumps(content, indent=1, allow_nan=False)[:-2]},\n "outcomes": {outcomes}\n}}'


def read_result(path: Path) -> TaskResult | None:
    """A result file; None if there is none.

    Raises:
        SlimvoxError: if it is damaged.
    """
    if not path.is_file():
        return None
    try:
        result: TaskResult = build(TaskResult, read_json_object(path))
        build(_Configuration, result.configuration, "configuration", ignore_unknown=True)
        for metric, score in result.scores.items():
            build(_Score, score, f"scores.{metric}", ignore_unknown=True)
        for metric, outcomes in result.outcomes.items():
            build(Outcomes, outcomes, f"outcomes.{metric}")
    except SlimvoxError as error:
        raise SlimvoxError(f"{path} is not a result of slimvox evaluate ({error}); remove it") from error
    return result


def read_results(folder: Path) -> tuple[TaskResult, ...]:
    """The results in an `--out` folder, in the order of the tasks.

    Raises:
        SlimvoxError: if one of them is damaged.
    """
    found = (read_result(folder / f"{name}.json") for name in task_names())
    return tuple(result for result in found if result is not None)


def metric_means(results: Sequence[TaskResult]) -> dict[str, float]:
    """Metric to mean over the seeds, of all tasks."""
    return {metric: each["mean"] for result in results for metric, each in result.scores.items()}
