"""Results of the runs of `run.py`, read from their directories."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from arms import ARMS, Arm

from slimvox.costs import macs, parameters
from slimvox.evaluation.results import metric_means
from slimvox.report.runs import RunRecord, read_runs
from slimvox.report.score_files import ScoreSet, read_scores
from slimvox.util.errors import SlimvoxError
from slimvox.util.json_files import read_json_object

COMPARISON = "run/comparison.json"
"""Output of `slimvox compare` on the held-out audio, in the directory of a run."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One run of an arm."""

    directory: Path
    seed: str
    """The name of its folder."""
    after_prune: float
    """Relative error right after surgery."""
    error: float
    """Relative error at the end."""
    mapped: float | None
    """Relative error after the best linear map, by `slimvox compare`; None if not measured."""
    cosine: float
    """1 - cosine at the end."""
    parameters: float
    """Share of dense."""
    macs: float
    """Share of dense, for 10 s."""
    scores: dict[str, float]
    """Metric of mini-SUPERB to value, of those that were scored."""
    mini: float | None
    """mini-SUPERB points; None unless every task that counts was scored."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """An arm and its runs."""

    arm: Arm
    runs: tuple[Result, ...]

    def values(self, of: Callable[[Result], float | None]) -> list[float]:
        """A measure of all runs that have it."""
        return [value for run in self.runs if (value := of(run)) is not None]

    @property
    def errors(self) -> list[float]:
        """Relative error at the end."""
        return self.values(lambda run: run.error)

    @property
    def mini(self) -> list[float]:
        """mini-SUPERB points of the runs that were scored."""
        return self.values(lambda run: run.mini)


def read_rows(folder: Path) -> list[Row]:
    """All arms of which at least one run is finished.

    Raises:
        SlimvoxError: if there is none.
    """
    rows = []
    for arm in ARMS:
        seeds = sorted(path for path in (folder / arm.name).glob("*") if path.is_dir())
        finished = [run for seed in seeds for run in read_runs([seed]) if run.finished]
        if finished:
            scores = {each.run.label: each for each in read_scores([], finished) if each.run is not None}
            runs = tuple(_result(run, scores.get(run.label)) for run in finished)
            rows.append(Row(arm=arm, runs=runs))
    if not rows:
        raise SlimvoxError(
            f"no run in {folder} is finished; start benchmarks/ablation/run.py with --out {folder}"
        )
    return rows


def larger_than_spread(first: Sequence[float], second: Sequence[float]) -> bool:
    """True if two means differ by more than twice the standard error of their difference (2 runs each at least)."""
    if min(len(first), len(second)) < 2:
        return False
    error = math.sqrt(sum(statistics.variance(each) / len(each) for each in (first, second)))
    return abs(statistics.fmean(first) - statistics.fmean(second)) > 2 * error


def verdict(first: Sequence[float], second: Sequence[float]) -> str:
    """`larger_than_spread` in words."""
    if min(len(first), len(second)) < 2:
        return "spread not known"
    return "more than the spread" if larger_than_spread(first, second) else "within the spread"


def points_gained(own: Sequence[float], base: Sequence[float]) -> str:
    """Difference of mean points, with its verdict; a dash if either side has none."""
    if not own or not base:
        return "-"
    return f"{statistics.fmean(own) - statistics.fmean(base):+.0f}, {verdict(own, base)}"


def with_spread(values: Sequence[float], digits: int) -> str:
    """Mean and, of several values, their standard deviation; a dash if there are none."""
    if not values:
        return "-"
    text = f"{statistics.fmean(values):.{digits}f}"
    return f"{text} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else text


def mapped_error(directory: Path) -> float | None:
    """Mean over the held-out sources and the states of the error after a map; None if it was not measured."""
    file = directory / COMPARISON
    if not file.is_file():
        return None
    sources = [each["distances"]["mapped_errors"] for each in read_json_object(file)["sources"]]
    return statistics.fmean(map(statistics.fmean, sources)) if all(sources) else None


def _result(run: RunRecord, scores: ScoreSet | None) -> Result:
    if run.after_prune is None or run.after_finish is None:
        raise SlimvoxError(f"{run.directory} measured no distance; give run.py audio that is held out")
    assert run.anatomy is not None and run.dense is not None  # it is finished
    return Result(
        directory=run.directory,
        seed=run.directory.name,
        after_prune=run.after_prune.relative_error,
        error=run.after_finish.relative_error,
        mapped=mapped_error(run.directory),
        cosine=run.after_finish.cosine,
        parameters=parameters(run.anatomy) / parameters(run.dense),
        macs=macs(run.anatomy) / macs(run.dense),
        scores={} if scores is None else metric_means(scores.results),
        mini=None if scores is None else scores.overall.get("mini"),
    )
