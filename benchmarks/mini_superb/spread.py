"""Spread of the `mini` score over prunings of one recipe, and how much of it heads and test clips explain."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from score_tables import ScoredModel, line, mini_by_seed, read_model, rule, seeds_of

from slimvox.evaluation.against import check_comparable, metric_score
from slimvox.evaluation.intervals import LEVEL, Score, weighted
from slimvox.evaluation.points import METRICS_OF, FixedRows
from slimvox.evaluation.results import TaskResult, read_results
from slimvox.report.score_files import SCORES
from slimvox.util.errors import SlimvoxError

Recipes = Mapping[str, Sequence[ScoredModel]]
"""Prunings of each recipe, by its name."""
SEEDS = (1, 3, 10)
"""Numbers of heads for which the spread is predicted."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Variances in points squared; NaN where unknown."""

    heads: float
    """Variance of the mean over the heads' seeds if other seeds were drawn."""
    clips: float
    """Variance if other test speakers and clips were drawn, without what they change for all prunings alike."""
    prunings: float
    """Variance over the prunings of a recipe, with both of the above in it."""

    @property
    def rest(self) -> float:
        """Variance that neither heads nor clips explain."""
        return max(0.0, self.prunings - self.heads - (0.0 if math.isnan(self.clips) else self.clips))

    @property
    def cells(self) -> tuple[str, ...]:
        """Standard deviations as text."""
        return tuple(
            "-" if math.isnan(each) else f"{math.sqrt(each):.1f}"
            for each in (self.heads, self.clips, self.prunings, self.rest)
        )


def read_recipes(folders: Iterable[Path]) -> dict[str, list[ScoredModel]]:
    """Read the prunings of recipes, each a folder with a folder for each pruning.

    Raises:
        SlimvoxError: if a folder holds no scores, or the scores are not comparable.
    """
    recipes = {}
    for folder in folders:
        scored = [path / SCORES if (path / SCORES).is_dir() else path for path in sorted(folder.glob("*/"))]
        recipes[folder.name] = [read_model(str(path), path) for path in scored if read_results(path)]
        if not recipes[folder.name]:
            raise SlimvoxError(f"{folder} must hold a folder of scores for each pruning of a recipe")
    check_comparable({each.name: each.results for models in recipes.values() for each in models})
    return recipes


def spread_table(recipes: Recipes, fixed: FixedRows) -> str:
    """Markdown: standard deviations by task and of the total, the points of each recipe, and the effect of more heads.

    Args:
        recipes: what was scored; a task counts here if all prunings were scored on it.
        fixed: what the `mini` score is measured by.

    Raises:
        SlimvoxError: if no task was scored on all of them.
    """
    models = [each for prunings in recipes.values() for each in prunings]
    tasks = [task for task in fixed.tasks if all(model.of(task) for model in models)]
    if not tasks:
        raise SlimvoxError("no task that counts was scored on all of the models")
    total = sum(fixed.weights.values())
    by_task = {task: _spread(recipes, [task], fixed) for task in tasks}
    both = _spread(recipes, tasks, fixed)
    head = ("task", "weight", "other heads", "other test clips", "over prunings, total", "not explained")
    lines = [line(head), rule(len(head))]
    for task, own in by_task.items():
        lines.append(line([task.upper(), f"{fixed.weights[task] / total:.2f}", *own.cells]))
    share = sum(fixed.weights[task] for task in tasks) / total
    alone = Spread(**{name: sum(getattr(own, name) for own in by_task.values()) for name in _VARIANCES})
    lines.append(line(["sum, as if independent", f"{share:.2f}", *alone.cells]))
    lines.append(line(["**sum**", f"{share:.2f}", *both.cells]))
    degrees = sum(len(prunings) - 1 for prunings in recipes.values())
    if degrees:
        from scipy.stats import chi2

        low, high = (
            math.sqrt(both.prunings * degrees / chi2.ppf(q, degrees))
            for q in ((1 + LEVEL) / 2, (1 - LEVEL) / 2)
        )
        counts = f"{len(models)} prunings of {len(recipes)} recipe{'s' if len(recipes) > 1 else ''}"
        lines += ["", f"{counts}: {both.cells[2]} points (95 % confidence interval {low:.1f} to {high:.1f})"]
        heads = _seeds(models[0], tasks)
        if heads > 1:
            one = both.heads * heads
            predicted = [math.sqrt(max(0.0, both.prunings - both.heads) + one / count) for count in SEEDS]
            each = ", ".join(f"{count}: {value:.1f}" for count, value in zip(SEEDS, predicted, strict=True))
            lines[-1] += f"; by calculation with other numbers of heads, {each}"
    if set(tasks) == set(fixed.tasks):
        lines += ["", "| recipe | prunings | mini, each | mean |", "|---|---|---|---|"]
        for name, prunings in recipes.items():
            points = [statistics.fmean(mini_by_seed(model, fixed)) for model in prunings]
            mean = f"{statistics.fmean(points):.0f}"
            mean += f" ± {statistics.stdev(points):.0f}" if len(points) > 1 else ""
            lines.append(line([name, str(len(points)), ", ".join(f"{each:.0f}" for each in points), mean]))
    return "\n".join(lines)


_VARIANCES = ("heads", "clips", "prunings")


def _spread(recipes: Recipes, tasks: Sequence[str], fixed: FixedRows) -> Spread:
    """Pooled over the recipes, of the points that some tasks contribute together."""
    heads, clips, squares, degrees = [], [], 0.0, 0
    for prunings in recipes.values():
        by_task = [[_points(model, task, fixed) for task in tasks] for model in prunings]
        for model in by_task:
            heads.append(sum(statistics.variance(own) / len(own) for own in model if len(own) > 1))
        means = [sum(map(statistics.fmean, model)) for model in by_task]
        squares += sum((each - statistics.fmean(means)) ** 2 for each in means)
        degrees += len(means) - 1
        for first, second in itertools.combinations(prunings, 2):
            clips.append(_of_clips(first.results, second, tasks, fixed) / 2)
    return Spread(
        heads=statistics.fmean(heads),
        clips=statistics.fmean(clips) if clips else math.nan,
        prunings=squares / degrees if degrees else math.nan,
    )


def _points(model: ScoredModel, task: str, fixed: FixedRows) -> list[float]:
    """Contribution of a task to the total, up to a constant, by seed."""
    worth, values = fixed.points_per_unit(), seeds_of(model)
    by_metric = [[worth[metric] * each for each in values[metric]] for metric in METRICS_OF[task]]
    return [sum(parts) for parts in zip(*by_metric, strict=True)]


def _of_clips(
    first: Sequence[TaskResult], second: ScoredModel, tasks: Sequence[str], fixed: FixedRows
) -> float:
    """Variance of the difference of two models, resampling the test speakers and clips; NaN without outcomes."""
    worth, parts = fixed.points_per_unit(), []
    for result in first:
        other = second.of(result.task)
        if result.task in tasks and other is not None:
            parts += [(worth[name], metric_score(result, name, other)) for name in METRICS_OF[result.task]]
    return _variance(parts)


def _variance(parts: Sequence[tuple[float, Score]]) -> float:
    _, deviations = weighted(parts)
    draws = [own.draws for kind, own in deviations.items() if kind.startswith("sources")]
    return float(np.var(sum(draws))) if draws else math.nan


def _seeds(model: ScoredModel, tasks: Sequence[str]) -> int:
    values = seeds_of(model)
    return max(len(values[metric]) for task in tasks for metric in METRICS_OF[task])
