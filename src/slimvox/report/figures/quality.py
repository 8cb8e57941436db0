"""Quality and cost of a run's model, for the axes of the figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from slimvox.checkpoint.resolve import EMBEDDED
from slimvox.costs import parameters
from slimvox.evaluation.tasks import tasks
from slimvox.report.runs import RunRecord
from slimvox.report.score_files import ScoreSet
from slimvox.util.errors import SlimvoxError

DISTANCE = "distance"
AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class Quality:
    """One measure of every run."""

    name: str
    title: str
    """Title of the axis."""
    higher_is_better: bool
    values: Mapping[str, float]
    """Value by label of the run; runs without a value are omitted."""
    others: tuple[tuple[str, int, float], ...]
    """Label, parameters and value of other measured models, such as the teacher."""

    @property
    def axis(self) -> str:
        """Title of the axis, with the direction that is better."""
        return f"{self.title}\n({'higher' if self.higher_is_better else 'lower'} is better)"


def choose_quality(name: str, runs: Sequence[RunRecord], scores: Sequence[ScoreSet]) -> Quality:
    """The quality measure with a name.

    Args:
        name: `distance` (to the teacher, at the end); `mini`, `superb_s`, `mean11`; a metric such as `pr`; or `auto`,
            the score over all tasks if every run has one, else the distance.
        runs: runs to be plotted.
        scores: scores of their models, and of others.

    Raises:
        SlimvoxError: if there is no such measure.
    """
    totals = list(dict.fromkeys(key for each in scores for key in each.overall))
    scored = {each.run.label: each for each in scores if each.run is not None}
    if name == AUTO:
        complete = [total for total in totals if all(total in _overall(scored, run) for run in runs)]
        name = complete[0] if complete and runs else DISTANCE
    if name == DISTANCE:
        values = {run.label: run.after_finish.relative_error for run in runs if run.after_finish is not None}
        dense = {run.dense: "dense" for run in runs if run.dense is not None}
        others = tuple((label, parameters(anatomy), 0.0) for anatomy, label in dense.items())
        return Quality(
            name=name,
            title="distance to the teacher (relative error)",
            higher_is_better=False,
            values=values,
            others=others,
        )
    if name in totals or name in ("mini", "superb_s", "mean11"):
        quality = _from_scores(name, f"{name} score", True, scores, lambda each: each.overall.get(name))
        return replace(quality, others=quality.others or _teacher_of(runs)) if name == "mini" else quality
    metrics = tuple(metric.name for task in tasks() for metric in task.metrics)
    if name in metrics:
        found = [each.metrics[name] for each in scores if name in each.metrics]
        title = f"{name.partition('_')[0].upper()} {found[0]['title']}" if found else name
        better = bool(found[0]["higher_is_better"]) if found else True

        def value(each: ScoreSet) -> float | None:
            return float(each.metrics[name]["mean"]) if name in each.metrics else None

        return _from_scores(name, title, better, scores, value)
    known = ", ".join((AUTO, DISTANCE, "mini", "superb_s", "mean11", *metrics))
    raise SlimvoxError(f"`quality` must be one of {known}, but is {name!r} instead")


def _teacher_of(runs: Sequence[RunRecord]) -> tuple[tuple[str, int, float], ...]:
    """The embedded teacher, which has 1000 `mini` points by definition, if the runs started from it."""
    dense = {run.dense for run in runs if run.dense is not None and run.teacher == EMBEDDED}
    return tuple(("dense", parameters(anatomy), 1000.0) for anatomy in dense)


def _overall(scored: Mapping[str, ScoreSet], run: RunRecord) -> Mapping[str, float]:
    return scored[run.label].overall if run.label in scored else {}


def _from_scores(
    name: str,
    title: str,
    higher_is_better: bool,
    scores: Sequence[ScoreSet],
    value: Callable[[ScoreSet], float | None],
) -> Quality:
    found = [(each, number) for each in scores if (number := value(each)) is not None]
    return Quality(
        name=name,
        title=title,
        higher_is_better=higher_is_better,
        values={each.run.label: number for each, number in found if each.run is not None},
        others=tuple((each.label, each.parameters, number) for each, number in found if each.run is None),
    )
