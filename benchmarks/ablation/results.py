"""Results of the runs of `run.py`, read from their directories or from the CSV that `table.py` writes."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from arms import ARMS, Arm

from slimvox.costs import macs, parameters
from slimvox.evaluation.intervals import Estimate
from slimvox.evaluation.points import METRICS
from slimvox.evaluation.results import metric_means
from slimvox.report.runs import RunRecord, read_runs
from slimvox.report.score_files import ScoreSet, read_scores
from slimvox.util.errors import SlimvoxError
from slimvox.util.json_files import read_json_object

COMPARISON = "run/comparison.json"
"""Output of `slimvox compare` on the held-out audio, in the directory of a run."""
SPEEDS = "speed.json"
"""Speed-ups of the runs, in the folder of all runs."""
FIELDS = ("after_prune", "error", "mapped", "cosine", "parameters", "macs", "speed_up", "mini")
"""Columns of the CSV that are fields of `Result`, between arm and seed and the metrics."""


Run = TypeVar("Run")


@dataclass(frozen=True, kw_only=True)
class Result:
    """One run of an arm."""

    directory: Path | None = None
    """None if read from a CSV."""
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
    speed_up: float | None = None
    """Dense time divided by its own, for a clip of 10 s; None if not measured."""
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
    def speed_ups(self) -> list[float]:
        """Speed-up over dense of the runs that were timed."""
        return self.values(lambda run: run.speed_up)

    @property
    def mini(self) -> list[float]:
        """mini-SUPERB points of the runs that were scored."""
        return self.values(lambda run: run.mini)


def read_rows(source: Path) -> list[Row]:
    """All arms of which at least one run is finished.

    Args:
        source: folder of all runs, or a CSV written by `write_csv`.

    Raises:
        SlimvoxError: if there is none.
    """
    read = _read_csv if source.is_file() else _read_folder
    rows = [Row(arm=arm, runs=runs) for arm, runs in read(source) if runs]
    if not rows:
        raise SlimvoxError(
            f"no run in {source} is finished; start benchmarks/ablation/run.py with --out {source}"
        )
    return rows


def _read_folder(folder: Path) -> Iterator[tuple[Arm, tuple[Result, ...]]]:
    kept = folder / SPEEDS
    speeds = read_json_object(kept) if kept.is_file() else {}
    for arm in ARMS:
        seeds = sorted(path for path in (folder / arm.name).glob("*") if path.is_dir())
        finished = [run for seed in seeds for run in read_runs([seed]) if run.finished]
        scores = {each.run.label: each for each in read_scores([], finished) if each.run is not None}
        yield (
            arm,
            tuple(
                _result(run, scores.get(run.label), speeds.get(f"{arm.name}/{run.directory.name}"))
                for run in finished
            ),
        )


def _read_csv(path: Path) -> Iterator[tuple[Arm, tuple[Result, ...]]]:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        lines = list(reader)
    if {"arm", "seed"} - {*(reader.fieldnames or ())}:
        raise SlimvoxError(f"{path} has no columns `arm` and `seed`; give a CSV that table.py --csv wrote")
    for arm in ARMS:
        yield arm, tuple(_from_line(line) for line in lines if line.get("arm") == arm.name)


def write_csv(out: Path, rows: Sequence[Row]) -> None:
    """A line per run; what was not measured is empty."""
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["arm", "seed", *FIELDS, *METRICS])
        for row in rows:
            for run in row.runs:
                values = [getattr(run, name) for name in FIELDS] + [run.scores.get(name) for name in METRICS]
                writer.writerow([row.arm.name, run.seed, *("" if each is None else each for each in values)])


def read_runs_csv(path: Path, script: str, run: Callable[[Arm, Mapping[str, str]], Run]) -> list[Run]:
    """The runs of a CSV that a script wrote with `--csv`, with an arm in each line.

    Args:
        path: the CSV.
        script: name of the script, for the error.
        run: makes a run of its arm and its line.

    Raises:
        SlimvoxError: if the CSV is not one of that script.
    """
    by_name = {arm.name: arm for arm in ARMS}
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    try:
        return [run(by_name[line["arm"]], line) for line in lines]
    except (KeyError, ValueError, AttributeError) as error:
        raise SlimvoxError(f"{path} is not a CSV that {script} --csv wrote ({error})") from error


def numbers_of(line: Mapping[str, str], names: Iterable[str]) -> dict[str, float]:
    """Numbers of the columns that are there and not empty."""
    return {name: float(line[name]) for name in names if line.get(name)}


def difference(first: Sequence[float], second: Sequence[float], *, percent: bool = False) -> str:
    """Mean of the first - mean of the second, with Welch's 95 % confidence interval, bold if that leaves out 0.

    Args:
        first: a value per run.
        second: likewise.
        percent: in percent of the second's mean instead of units.

    Returns:
        The text; marked if one side has only one run, and a dash if it has none.
    """
    if not first or not second:
        return "-"
    unit = abs(statistics.fmean(second)) / 100 if percent else 1.0
    value = statistics.fmean(first) - statistics.fmean(second)
    text = f"{value / unit:+.0f}{' %' if percent else ''}"
    if min(len(first), len(second)) < 2:
        return f"{text} (one run)"
    parts = [(statistics.variance(each) / len(each), len(each) - 1) for each in (first, second)]
    variance = sum(part for part, _ in parts)
    if not variance:
        return f"{text}, no spread"
    degrees = variance**2 / sum(part**2 / count for part, count in parts)
    found = Estimate(value=value / unit, error=math.sqrt(variance) / unit, degrees=degrees)
    return with_interval(text, (found.value - found.half_width, found.value + found.half_width))


def paired_difference(first: Sequence[float], second: Sequence[float]) -> str:
    """Geometric mean of first / second, pair by pair, as a difference in percent with its interval by Student's t.

    Args:
        first: a positive value per pair.
        second: likewise.
    """
    logs = [math.log(one / other) for one, other in zip(first, second, strict=True)]
    mean = statistics.fmean(logs)
    text = f"{100 * math.expm1(mean):+.0f} %"
    if len(logs) < 2:
        return f"{text} (one run)"
    found = _mean(logs)
    low, high = (100 * math.expm1(mean + sign * found.half_width) for sign in (-1, 1))
    return with_interval(text, (low, high))


def paired_points(first: Sequence[float], second: Sequence[float]) -> str:
    """Mean of first - second, pair by pair, with its interval by Student's t.

    Args:
        first: a value per pair.
        second: likewise.
    """
    gaps = [one - other for one, other in zip(first, second, strict=True)]
    mean = statistics.fmean(gaps)
    text = f"{mean:+.0f}"
    if len(gaps) < 2:
        return f"{text} (one run)"
    found = _mean(gaps)
    return with_interval(text, (mean - found.half_width, mean + found.half_width))


def _mean(values: Sequence[float]) -> Estimate:
    """Mean of two values or more, with its standard error."""
    error = statistics.stdev(values) / math.sqrt(len(values))
    return Estimate(value=statistics.fmean(values), error=error, degrees=len(values) - 1)


def with_interval(text: str, interval: tuple[float, float]) -> str:
    """A difference with its interval, bold if that leaves out 0."""
    low, high = interval
    return f"{f'**{text}**' if low * high > 0 else text} ({low:+.0f} to {high:+.0f})"


def with_spread(values: Sequence[float], digits: int) -> str:
    """Mean and, of several values, their standard deviation; a dash if there are none."""
    if not values:
        return "-"
    text = f"{statistics.fmean(values):.{digits}f}"
    return f"{text} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else text


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table without the columns in which nothing was measured."""
    kept = [place for place in range(len(head)) if any(line[place] != "-" for line in lines)]
    rows = [[line[place] for place in kept] for line in (head, *lines)]
    rows.insert(1, ["---"] * len(kept))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def mapped_error(directory: Path) -> float | None:
    """Mean over the held-out sources and the states of the error after a map; None if it was not measured."""
    file = directory / COMPARISON
    if not file.is_file():
        return None
    sources = [each["distances"]["mapped_errors"] for each in read_json_object(file)["sources"]]
    return statistics.fmean(map(statistics.fmean, sources)) if all(sources) else None


def _from_line(line: Mapping[str, str]) -> Result:
    known = {name: float(line[name]) for name in (*FIELDS, *METRICS) if line.get(name)}
    fields: dict[str, Any] = {name: known.get(name) for name in FIELDS}
    return Result(
        seed=line["seed"], scores={name: known[name] for name in METRICS if name in known}, **fields
    )


def _result(run: RunRecord, scores: ScoreSet | None, speed_up: float | None) -> Result:
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
        speed_up=speed_up,
        scores={} if scores is None else metric_means(scores.results),
        mini=None if scores is None else scores.overall.get("mini"),
    )
