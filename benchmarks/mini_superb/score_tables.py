"""Several models' results side by side, as Markdown, and the rows that fix the `mini` score."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimvox.evaluation.points import (
    ERROR_RATES,
    METRICS,
    METRICS_OF,
    FixedRows,
    Scale,
    counted_metrics,
    mini_score,
    task_points,
)
from slimvox.evaluation.results import TaskResult, metric_means, read_results
from slimvox.evaluation.tasks import task_names
from slimvox.util.errors import SlimvoxError


@dataclass(frozen=True, kw_only=True)
class ScoredModel:
    """All results of one model."""

    name: str
    """Name in the head of the table."""
    results: tuple[TaskResult, ...]

    @property
    def parameters(self) -> int:
        """Number of parameters of the encoder."""
        return int(self.results[0].configuration["parameters"])

    def of(self, task: str) -> TaskResult | None:
        """The result of a task, if there is one."""
        return next((result for result in self.results if result.task == task), None)


def read_model(name: str, folder: Path) -> ScoredModel:
    """Read the `--out` folder of an evaluation.

    Raises:
        SlimvoxError: if there is no result in it, or one of them is damaged.
    """
    results = read_results(folder)
    if not results:
        raise SlimvoxError(f"there is no result of slimvox evaluate in {folder}; give its --out folder")
    return ScoredModel(name=name, results=results)


def score_table(models: Sequence[ScoredModel], fixed: FixedRows | None) -> str:
    """Markdown: a line per metric, a column per model with mean and spread, chance last.

    Args:
        models: what to compare.
        fixed: what the `mini` score is measured by; without it there is no such line.
    """
    lines = [line(["task", "metric", *(model.name for model in models), "chance"]), rule(len(models) + 3)]
    for task in task_names():
        results = [model.of(task) for model in models]
        known = next((result for result in results if result is not None), None)
        if known is None:
            continue
        for index, (metric, described) in enumerate(known.scores.items()):
            arrow = "↑" if described["higher_is_better"] else "↓"
            cells = [task.upper() if not index else "", f"{described['title']} {arrow}"]
            cells += ["-" if result is None else _score(result.scores[metric]) for result in results]
            lines.append(line([*cells, _figure(described["chance"], described["percent"])]))
    if fixed is not None:
        cells = [_spread(mini_by_seed(model, fixed), "{:.0f}") for model in models]
        lines.append(line(["**mini**", f"points, {len(fixed.tasks)} tasks ↑", *cells, ""]))
    parameters = [f"{model.parameters / 1e6:.2f} M" for model in models]
    return "\n".join([*lines, line(["parameters", "", *parameters, ""])])


def time_table(models: Sequence[ScoredModel]) -> str:
    """Markdown: seconds of encoding and of fitting heads, per task and model, and their sum."""
    lines = [line(["task", *(f"{model.name}: encode + fit" for model in models)]), rule(len(models) + 1)]
    for task in task_names():
        cells = []
        for model in models:
            result = model.of(task)
            cells.append(
                "-" if result is None else f"{result.seconds['encode']:.0f} + {result.seconds['fit']:.0f}"
            )
        lines.append(line([task.upper(), *cells]))
    for title, key in (("all, minutes", "total"), ("of a processor, minutes", "processor")):
        # Results of earlier versions have no time of the processor.
        known = [[result.seconds.get(key) for result in model.results] for model in models]
        sums = ["-" if None in each else f"{sum(filter(None, each)) / 60:.1f}" for each in known]
        lines.append(line([title, *sums]))
    return "\n".join(lines)


def mini_by_seed(model: ScoredModel, fixed: FixedRows) -> list[float]:
    """The `mini` score of each seed; empty unless all tasks that count were scored."""
    values, counted = seeds_of(model), counted_metrics(fixed.tasks)
    if any(metric not in values for metric in counted):
        return []
    seeds = max(len(values[metric]) for metric in counted)
    return [
        mini_score(
            # Query by example trains nothing: it has one value, whatever the seed.
            {metric: values[metric][seed if len(values[metric]) > 1 else 0] for metric in counted},
            fixed,
        )
        for seed in range(seeds)
    ]


def seeds_of(model: ScoredModel) -> dict[str, list[float]]:
    """Metric to the values of the seeds."""
    return {metric: each["seeds"] for result in model.results for metric, each in result.scores.items()}


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


def pruning_noise(rows: Sequence[Mapping[str, str]], scale: Scale) -> dict[str, float]:
    """Standard deviation of each task's points over prunings of one recipe, each with heads of its own.

    Args:
        rows: lines of `docs/results-ablation-1.csv`: an arm, and values by metric, empty where not scored.
        scale: values that are 0 and 1000 points.
    """
    arms: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        scores = {metric: float(row[metric]) for metric in METRICS if row.get(metric)}
        for task, points in task_points(scores, scale).items():
            arms.setdefault((task, row["arm"]), []).append(points)
    by_task: dict[str, list[float]] = {}
    for (task, _), points in arms.items():
        if len(points) > 1:
            by_task.setdefault(task, []).append(statistics.variance(points))
    return {task: math.sqrt(statistics.fmean(variances)) for task, variances in by_task.items()}


def task_weights(noise: Mapping[str, float], tasks: Sequence[str]) -> dict[str, float]:
    """Weights of the tasks that count, inverse to the noise of their points, with a sum of 1.

    A task whose noise is unknown has no weight and does not count.
    """
    known = [task for task in tasks if noise.get(task)]
    total = sum(1 / noise[task] for task in known)
    return {task: round(1 / noise[task] / total, 4) for task in known}


def fixed_row(model: ScoredModel) -> dict[str, float]:
    """The means of all metrics.

    Raises:
        SlimvoxError: if a task is missing, or was not mini-SUPERB's.
    """
    means = metric_means(model.results)
    missing = [metric for metric in METRICS if metric not in means]
    if missing:
        raise SlimvoxError(f"{model.name} has no result for {missing[0]}; a fixed row needs all ten tasks")
    if any(result.configuration["suite"] != "mini" for result in model.results):
        raise SlimvoxError(f"{model.name} was not scored on mini-SUPERB")
    return {metric: round(means[metric], 4) for metric in METRICS}


def _ahead(low: Sequence[float], high: Sequence[float], metric: str) -> bool:
    sign = -1 if metric in ERROR_RATES else 1
    changes = sum(statistics.variance(values) if len(values) > 1 else 0.0 for values in (low, high))
    return sign * (statistics.fmean(high) - statistics.fmean(low)) > 2 * math.sqrt(changes)


def _score(described: Mapping[str, Any]) -> str:
    return _spread(described["seeds"], "{:.1f}" if described["percent"] else "{:.3f}")


def _figure(value: float, percent: bool) -> str:
    return f"{value:.1f}" if percent else f"{value:.3f}"


def _spread(values: Sequence[float], form: str) -> str:
    if not values:
        return "-"
    text = form.format(statistics.fmean(values))
    return f"{text} ± {form.format(statistics.stdev(values))}" if len(values) > 1 else text


def line(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def rule(columns: int) -> str:
    """The row of a Markdown table below its header."""
    return "|" + "---|" * columns
