"""Compare targets in parameters, in MACs and in time, at the same measured time.

    python benchmarks/ablation/run.py AUDIO... --held-out TEST --out RUNS --steps 150 \\
        --arms quick{,-50,-80,-90} macs-{50,30,20,10} speed-{1.5,2,3,4}x
    python benchmarks/ablation/targets.py RUNS --measure --csv FILE.csv
    python benchmarks/ablation/targets.py FILE.csv

prints the error of each arm and its points (if it was scored on mini-SUPERB) beside its computing time, and both for
the three kinds of target where encoders are equally fast, by interpolation between the sizes of each kind, one seed at
a time. `--measure` times the runs of each seed side by side with the dense encoder in slimvox and in `transformers`,
and keeps the results in RUNS/times-SEED.json (`slimvox figures --benchmark` draws them); a seed that was measured is
not measured again. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from arms import Arm
from results import (
    Result,
    markdown,
    numbers_of,
    paired_difference,
    paired_points,
    read_rows,
    read_runs_csv,
    with_spread,
)

from slimvox.measure.benchmark import BenchmarkResult, benchmark
from slimvox.report.runs import read_runs
from slimvox.report.score_files import run_of
from slimvox.util.errors import SlimvoxError
from slimvox.util.files import write_atomically
from slimvox.util.json_files import read_json_object

SECONDS, THREADS, ROUNDS = (10.0, 2.0), (2, 1), 9
SPEEDS = (1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
"""Measured speed-ups over the dense encoder at which targets are compared, where all of them have sizes around it."""
KINDS: Mapping[str, str] = {"speed": "time", "macs": "MACs", "parameters": "parameters"}
"""Kinds of target and their titles; the first is compared with the others."""
POINTS = "mini"
"""Points of mini-SUPERB; interpolated as they are, while the other measures are interpolated as logarithms."""
MEASURES = ("error", "mapped", "parameters", "macs", POINTS)
RUNTIMES = ("dense", "transformers")
"""The dense encoder that the runs are measured beside, in slimvox and in `transformers`."""
PLACES = tuple(
    f"{seconds:g} s, {threads} thread{'s' * (threads > 1)}" for seconds in SECONDS for threads in THREADS
)
RATIOS = (("dense", PLACES[0]), ("dense", PLACES[1]), ("transformers", PLACES[0]))
"""Speed-ups that the table of the arms shows."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A run and its times."""

    arm: Arm
    seed: str
    measures: Mapping[str, float]
    """Values of `MEASURES`."""
    milliseconds: Mapping[str, float]
    """Median by place (`PLACES`)."""
    dense: Mapping[str, Mapping[str, float]]
    """Median of the dense encoder measured beside it, by runtime (`RUNTIMES`) and place."""

    def speed_up(self, place: str, over: str = "dense") -> float:
        """Speed-up over the dense encoder in a runtime."""
        return self.dense[over][place] / self.milliseconds[place]


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, help="folder of the runs, or a CSV of this command")
    parser.add_argument("--measure", action="store_true", help="time the seeds that were not timed yet")
    parser.add_argument("--csv", type=Path, help="CSV to write")
    arguments = parser.parse_args()
    if arguments.measure and arguments.runs.is_file():
        parser.error("--measure needs the folder of the runs, not a CSV")
    try:
        if arguments.measure:
            measure(arguments.runs)
        runs = read_csv(arguments.runs) if arguments.runs.is_file() else read_folder(arguments.runs)
        print(tables(runs))
    except SlimvoxError as error:
        parser.exit(2, f"{error}\n")
    if arguments.csv is not None:
        write_csv(arguments.csv, runs)


def compared(arm: Arm) -> bool:
    """True for an arm that is a size of `quick` by some kind of target."""
    return arm.shipped or arm.kind == "target"


def by_seed(folder: Path) -> dict[str, list[tuple[Arm, Result]]]:
    """The finished runs."""
    found: dict[str, list[tuple[Arm, Result]]] = {}
    for row in read_rows(folder):
        for run in row.runs if compared(row.arm) else ():
            found.setdefault(run.seed, []).append((row.arm, run))
    return found


def measure(folder: Path) -> None:
    """Time the runs of each seed of which not all were timed yet."""
    for seed, runs in by_seed(folder).items():
        directories = [run.directory for _, run in runs if run.directory is not None]
        kept = times_file(folder, seed)
        if not kept.is_file() or {*directories} - {*labels(read_times(kept), directories)}:
            found = benchmark(directories, seconds=SECONDS, threads=THREADS, runs=ROUNDS, on_progress=print)
            write_atomically(kept, json.dumps(found.to_dict(), indent=1).encode())


def times_file(folder: Path, seed: str) -> Path:
    """Result of the benchmark of a seed."""
    return folder / f"times-{seed}.json"


def read_times(path: Path) -> BenchmarkResult:
    """The benchmark of a seed."""
    return BenchmarkResult.from_dict(read_json_object(path))


def labels(times: BenchmarkResult, directories: Sequence[Path]) -> dict[Path, str]:
    """Labels in a benchmark of those runs that it measured."""
    records = read_runs(directories)
    found = {}
    for each in times.contenders:
        run = run_of(each.model, each.parameters, records)
        if run is not None and each.backend == "torch":
            found[run.directory] = each.label
    return found


def read_folder(folder: Path) -> list[Timed]:
    """The runs that were timed.

    Raises:
        SlimvoxError: if there are none.
    """
    found = []
    for seed, runs in by_seed(folder).items():
        if not times_file(folder, seed).is_file():
            continue
        times = read_times(times_file(folder, seed))
        known = labels(times, [run.directory for _, run in runs if run.directory is not None])
        for arm, run in runs:
            label = None if run.directory is None else known.get(run.directory)
            if label is None:
                continue
            dense = {"dense": times.contender(label).dense, "transformers": times.reference}
            values = {name: getattr(run, name) for name in MEASURES}
            found.append(
                Timed(
                    arm=arm,
                    seed=seed,
                    measures={name: value for name, value in values.items() if value is not None},
                    milliseconds=dict(medians(times, label)),
                    dense={name: dict(medians(times, each)) for name, each in dense.items() if each},
                )
            )
    if not found:
        raise SlimvoxError(f"no run in {folder} was timed; add --measure")
    return found


def medians(times: BenchmarkResult, label: str) -> Iterator[tuple[str, float]]:
    """Median milliseconds of a contender by place."""
    points = [(seconds, threads) for seconds in SECONDS for threads in THREADS]
    for place, (seconds, threads) in zip(PLACES, points, strict=True):
        yield place, times.at(label, 1, seconds, threads).median_ms


def tables(runs: Sequence[Timed]) -> str:
    """Markdown: a line per arm, and for each length of clip and number of threads a line per speed-up."""
    parts = [arm_table(runs)]
    for place in PLACES:
        parts.append(f"{place}:\n\n{comparison(runs, place, 'error')}")
    parts.append(f"{PLACES[0]}, error after a map:\n\n{comparison(runs, PLACES[0], 'mapped')}")
    if any(POINTS in run.measures for run in runs):
        parts += [f"{place}, points:\n\n{comparison(runs, place, POINTS)}" for place in PLACES[:2]]
    return "\n\n".join(parts)


def arm_table(runs: Sequence[Timed]) -> str:
    """Markdown: a line per arm, by kind of target, slowest first; means and standard deviations over its runs."""
    lines = []
    for arm in sorted({run.arm.name: run.arm for run in runs}.values(), key=_place):
        own = [run for run in runs if run.arm == arm]
        measures = {name: [run.measures[name] for run in own if name in run.measures] for name in MEASURES}
        lines.append(
            [
                f"`--target-{arm.target.kind} {arm.target.text}`",
                str(len(own)),
                f"**{with_spread(measures['error'], 3)}**",
                with_spread(measures["mapped"], 3),
                with_spread(measures[POINTS], 0),
                f"{statistics.fmean(measures['parameters']):.0%}",
                f"{statistics.fmean(measures['macs']):.0%}",
                *(with_spread([run.milliseconds[place] for run in own], 1) for place in PLACES),
                *(
                    f"{statistics.fmean(run.speed_up(place, over) for run in own):.2f}x"
                    for over, place in RATIOS
                ),
            ]
        )
    head = ("target", "runs", "error at the end", "after a map", "points", "parameters", "MACs")
    ratios = tuple(f"over {over}, {place}" for over, place in RATIOS)
    return markdown((*head, *(f"ms: {place}" for place in PLACES), *ratios), lines)


def _place(arm: Arm) -> tuple[int, float]:
    """Sort key of an arm in the table."""
    slowest_first = 1 if arm.target.kind == "speed" else -1
    return [*KINDS].index(arm.target.kind), slowest_first * arm.target.value


def comparison(runs: Sequence[Timed], place: str, measure: str) -> str:
    """Markdown: a line per speed-up with the mean of each kind of target and how far the first is from the others.

    Differences are geometric means over the seeds with 95 % intervals of Student's t, or of points arithmetic means;
    the last line has the mean over the speed-ups of each seed.
    """
    mean, difference, digits = statistics.geometric_mean, paired_difference, 3
    if measure == POINTS:
        mean, difference, digits = statistics.fmean, paired_points, 0
    first, *others = KINDS
    shown: dict[float, list[dict[str, float]]] = {}
    of_seed: dict[str, list[dict[str, float]]] = {}
    for seed in dict.fromkeys(run.seed for run in runs):
        own = [run for run in runs if run.seed == seed]
        for speed in SPEEDS:
            values = {kind: at_speed(own, kind, place, measure, speed) for kind in KINDS}
            if not any(map(math.isnan, values.values())):
                shown.setdefault(speed, []).append(values)
                of_seed.setdefault(seed, []).append(values)
    means = [{kind: mean([each[kind] for each in found]) for kind in KINDS} for found in of_seed.values()]
    lines = []
    for title, found in [*((f"{speed:g}x", shown[speed]) for speed in sorted(shown)), ("mean", means)]:
        if found:
            columns = {kind: [each[kind] for each in found] for kind in KINDS}
            lines.append(
                [
                    title,
                    str(len(found)),
                    *("-" if title == "mean" else with_spread(columns[kind], digits) for kind in KINDS),
                    *(difference(columns[first], columns[other]) for other in others),
                ]
            )
    titles = [f"target in {title}" for title in KINDS.values()]
    against = [f"{KINDS[first]} against {KINDS[other]}" for other in others]
    return markdown(("speed-up", "seeds", *titles, *against), lines)


def at_speed(runs: Sequence[Timed], kind: str, place: str, measure: str, speed: float) -> float:
    """A measure at a measured speed-up over the dense encoder, between the sizes of one kind of target and one seed.

    The logarithm of the measure (points: the measure itself) is interpolated over that of the speed-up; NaN if no size
    is as fast, or none as slow.
    """
    scaled, back = (float, float) if measure == POINTS else (math.log, math.exp)
    points = sorted(
        (math.log(run.speed_up(place)), scaled(run.measures[measure]))
        for run in runs
        if run.arm.target.kind == kind and measure in run.measures
    )
    if not points:
        return math.nan
    speeds, values = zip(*points, strict=True)
    return back(np.interp(math.log(speed), speeds, values, left=math.nan, right=math.nan))


def write_csv(out: Path, runs: Sequence[Timed]) -> None:
    """A line per run, times in milliseconds."""
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        columns = [f"{who}: {place}" for who in ("ms", *RUNTIMES) for place in PLACES]
        writer.writerow(["arm", "seed", *MEASURES, *columns])
        for run in runs:
            times = [each[place] for each in (run.milliseconds, *run.dense.values()) for place in PLACES]
            measured = [run.measures.get(name, "") for name in MEASURES]
            writer.writerow([run.arm.name, run.seed, *measured, *times])


def read_csv(path: Path) -> list[Timed]:
    """The runs of a CSV of this command.

    Raises:
        SlimvoxError: if it is not one.
    """

    def run(arm: Arm, line: Mapping[str, str]) -> Timed:
        return Timed(
            arm=arm,
            seed=line["seed"],
            measures=numbers_of(line, MEASURES),
            milliseconds={place: float(line[f"ms: {place}"]) for place in PLACES},
            dense={who: {place: float(line[f"{who}: {place}"]) for place in PLACES} for who in RUNTIMES},
        )

    return read_runs_csv(path, "targets.py", run)


if __name__ == "__main__":
    main()
