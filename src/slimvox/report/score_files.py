"""Score files of `slimvox evaluate`, and the runs they belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimvox.evaluation.result_table import overall
from slimvox.evaluation.results import TaskResult, read_results
from slimvox.evaluation.tasks import task
from slimvox.report.runs import RunRecord
from slimvox.util.errors import SlimvoxError

SCORES = "scores"
"""Folder in a run's directory where its scores are found without being named."""


@dataclass(frozen=True, kw_only=True)
class ScoreSet:
    """The scores of one model."""

    label: str
    """Label of the model on the page: the run's label, or the model given to `slimvox evaluate`."""
    run: RunRecord | None
    """The run that the model came from, if it is on the page."""
    parameters: int
    suite: str
    """`mini` or `official`."""
    results: tuple[TaskResult, ...]
    overall: Mapping[str, float]
    """`superb_s` and `mean11`, or `mini`; empty if a task is missing."""

    @property
    def metrics(self) -> dict[str, Mapping[str, Any]]:
        """Title, mean, spread, chance and so on by metric, see `TaskResult.scores`."""
        return {metric: score for result in self.results for metric, score in result.scores.items()}


def read_scores(paths: Sequence[str | Path], runs: Sequence[RunRecord]) -> tuple[ScoreSet, ...]:
    """Read the scores in folders that `slimvox evaluate --out` wrote, and those in `scores` of other runs.

    Raises:
        SlimvoxError: if a folder does not exist, has no scores or mixes models, or if a file is damaged.
    """
    given = []
    for path in (Path(each).expanduser() for each in paths):
        if not path.is_dir():
            raise SlimvoxError(
                f"there is no folder {path} with scores; `slimvox evaluate MODEL --out DIR` writes one"
            )
        given.append(_read(path, runs, None))
    replaced = {each.label for each in given}
    of_runs = [
        _read(run.directory / SCORES, runs, run)
        for run in runs
        if run.label not in replaced and (run.directory / SCORES).is_dir()
    ]
    sets = (*of_runs, *given)
    labels = [each.label for each in sets]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise SlimvoxError(f"there are several folders with scores of {twice[0]}; give one of them only")
    return sets


def _read(directory: Path, runs: Sequence[RunRecord], run: RunRecord | None) -> ScoreSet:
    found = read_results(directory)
    if not found:
        raise SlimvoxError(
            f"{directory} has no scores (files such as pr.json, which `slimvox evaluate --out` writes)"
        )
    first = found[0].configuration
    if any(
        each.configuration[name] != first[name] for each in found for name in ("model_fingerprint", "suite")
    ):
        raise SlimvoxError(
            f"{directory} mixes the scores of several models or suites; give a folder for each"
        )
    run = run or run_of(first["model"], first["parameters"], runs)
    return ScoreSet(
        label=run.label if run else first["model"],
        run=run,
        parameters=first["parameters"],
        suite=first["suite"],
        results=found,
        overall=overall(found, own_data=any(map(_own_data, found))),
    )


def run_of(model: str, parameters: int, runs: Sequence[RunRecord]) -> RunRecord | None:
    """The run that a user means by `model`: the same directory, or one with the same name and size."""
    for run in runs:
        if Path(model).expanduser().resolve() == run.directory.resolve():
            return run
    alike = [
        run
        for run in runs
        if run.directory.resolve().name == Path(model).name and run.parameters == parameters
    ]
    return alike[0] if len(alike) == 1 else None


def _own_data(result: TaskResult) -> bool:
    """True if a task of mini-SUPERB ran on the user's own tables."""
    if result.configuration["suite"] != "mini":
        return False
    if "yardstick" in result.configuration:
        return False
    names = {
        name.removesuffix(f"_{fold}") for fold, name in enumerate(result.configuration.get("data", ()), 1)
    }
    return names != {path.stem for path in task(result.task).mini_tables()}
