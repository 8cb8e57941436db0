"""Write what the runs of `run.py` came to as a page and as CSV.

    python benchmarks/ablation/table.py RUNS --out docs/results-ablation.md [--csv FILE.csv] [--scores SCORES] [--speed]

SCORES holds ARM-SEED/TASK.json as `slimvox evaluate --out` writes them. `--speed` measures how many times faster than
the dense encoder each arm's first seed is (once; the figures stay in RUNS/speed.json). The text of the page around the
tables is kept.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from arms import ARMS, Arm

from slimvox.checkpoint.resolve import load
from slimvox.cost import macs, parameters
from slimvox.errors import SlimvoxError
from slimvox.evaluation.comparison import mini_by_seed, read_model
from slimvox.evaluation.report import fixed_rows
from slimvox.latency.real_time import real_time_factors
from slimvox.report.markdown_page import write_tables
from slimvox.report.runs import RunRecord, read_runs

TITLE = "# Ablation"
SPEED_SECONDS, SPEED_ROUNDS = 10.0, 9


@dataclass(frozen=True, kw_only=True)
class Row:
    """An arm with what was measured of it, a value per seed."""

    arm: Arm
    after_prune: tuple[float, ...]
    """Relative error right after surgery."""
    error: tuple[float, ...]
    """Relative error at the end."""
    cosine: tuple[float, ...]
    """1 - cosine at the end."""
    parameters: tuple[float, ...]
    """Share of dense."""
    macs: tuple[float, ...]
    """Share of dense, for 10 s."""
    mini: tuple[float, ...]
    """mini-SUPERB points, the mean over the heads' seeds."""
    speed_up: float | None
    """Of the first seed."""


def main() -> None:
    """Read, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--scores", type=Path)
    parser.add_argument("--speed", action="store_true")
    arguments = parser.parse_args()
    try:
        rows = read_rows(arguments.runs, arguments.scores, arguments.speed)
        write_tables(arguments.out, TITLE, tables(rows))
        if arguments.csv is not None:
            write_csv(arguments.csv, rows)
    except SlimvoxError as error:
        parser.exit(2, f"{error}\n")


def read_rows(runs: Path, scores: Path | None, measure_speed: bool) -> list[Row]:
    """All arms of which at least one run is finished.

    Raises:
        SlimvoxError: if there is none.
    """
    found: dict[str, list[RunRecord]] = {}
    for arm in ARMS:
        seeds = sorted(path for path in (runs / arm.name).glob("*") if path.is_dir())
        finished = [run for seed in seeds for run in read_runs([seed]) if run.finished]
        if finished:
            found[arm.name] = finished
    if not found:
        raise SlimvoxError(
            f"no run in {runs} is finished; start benchmarks/ablation/run.py with --out {runs}"
        )
    speeds = _speeds(runs, {name: each[0].directory for name, each in found.items()}, measure_speed)
    return [_row(arm, found[arm.name], scores, speeds) for arm in ARMS if arm.name in found]


def tables(rows: Sequence[Row]) -> str:
    """Markdown: the arms at 72 %, what differs by more than the spread, and the sizes."""
    main_rows = [row for row in rows if row.arm.kind != "size"]
    parts = [_table(main_rows)]
    for reference in ("paper", "quick"):
        base = next((row for row in main_rows if row.arm.name == reference), None)
        if base is not None:
            parts.append(_differences(base, main_rows))
    if len(main_rows) < len(rows):
        parts.append(_table([row for row in rows if row.arm.kind == "size"]))
    return "\n\n".join(parts)


def write_csv(out: Path, rows: Sequence[Row]) -> None:
    """A line per run."""
    fields = ("after_prune", "error", "cosine", "parameters", "macs")
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["arm", "run", *fields, "mini"])
        for row in rows:
            for index in range(len(row.error)):
                mini = row.mini[index] if index < len(row.mini) else ""
                writer.writerow([row.arm.name, index, *(getattr(row, name)[index] for name in fields), mini])


def larger_than_spread(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether two means differ by more than twice the standard error of their difference (2 runs each at least)."""
    if min(len(first), len(second)) < 2:
        return False
    error = math.sqrt(sum(statistics.variance(each) / len(each) for each in (first, second)))
    return abs(statistics.fmean(first) - statistics.fmean(second)) > 2 * error


def _row(arm: Arm, runs: Sequence[RunRecord], scores: Path | None, speeds: Mapping[str, float]) -> Row:
    after_prune, at_end = [], []
    for run in runs:
        if run.after_prune is None or run.after_finish is None:
            raise SlimvoxError(f"{run.directory} measured no distance; give run.py audio that is held out")
        after_prune.append(run.after_prune)
        at_end.append(run.after_finish)
    anatomies = [
        (run.anatomy, run.dense) for run in runs if run.anatomy is not None and run.dense is not None
    ]
    return Row(
        arm=arm,
        after_prune=tuple(each.relative_error for each in after_prune),
        error=tuple(each.relative_error for each in at_end),
        cosine=tuple(each.cosine for each in at_end),
        parameters=tuple(parameters(own) / parameters(dense) for own, dense in anatomies),
        macs=tuple(macs(own) / macs(dense) for own, dense in anatomies),
        mini=() if scores is None else _mini(arm, runs, scores),
        speed_up=speeds.get(arm.name),
    )


def _mini(arm: Arm, runs: Sequence[RunRecord], scores: Path) -> tuple[float, ...]:
    fixed = fixed_rows()
    if fixed is None:
        raise SlimvoxError("there are no fixed rows to count mini-SUPERB points by")
    folders = [scores / f"{arm.name}-{run.directory.name}" for run in runs]
    points = [mini_by_seed(read_model(each.name, each), fixed) for each in folders if each.is_dir()]
    return tuple(statistics.fmean(each) for each in points if each)


def _speeds(runs: Path, directories: Mapping[str, Path], measure: bool) -> dict[str, float]:
    """How many times faster than dense, by arm; measured anew where asked for."""
    kept = runs / "speed.json"
    if not measure:
        known: dict[str, float] = json.loads(kept.read_text()) if kept.is_file() else {}
        return known
    dense, speeds = load("embedded"), {}
    for name, directory in directories.items():
        # In pairs: oneDNN keeps 1,024 kernels, and all arms together need more.
        factors = real_time_factors(
            {"dense": dense, "arm": load(directory)}, seconds=SPEED_SECONDS, rounds=SPEED_ROUNDS
        )
        speeds[name] = factors["dense"] / factors["arm"]
    kept.write_text(json.dumps({**speeds, "threads": torch.get_num_threads()}, indent=1))
    return speeds


def _table(rows: Sequence[Row]) -> str:
    lines = [
        "| arm | runs | error after surgery | error at the end | 1 - cosine | parameters | MACs | speed-up | mini |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row.arm.title,
            str(len(row.error)),
            _spread(row.after_prune, 3),
            f"**{_spread(row.error, 3)}**",
            _spread(row.cosine, 3),
            f"{statistics.fmean(row.parameters):.1%}",
            f"{statistics.fmean(row.macs):.0%}",
            "-" if row.speed_up is None else f"{row.speed_up:.1f}x",
            _spread(row.mini, 0) if row.mini else "-",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _differences(base: Row, rows: Sequence[Row]) -> str:
    """A line per arm: how its error compares with the base's."""
    lines = [f"Error at the end, compared with {base.arm.title}:", ""]
    for row in rows:
        if row is base or (base.arm.name == "paper" and row.arm.kind != "paper"):
            continue
        ratio = statistics.fmean(row.error) / statistics.fmean(base.error)
        if min(len(row.error), len(base.error)) < 2:
            verdict = "one run, so its spread is not known"
        else:
            verdict = (
                "more than the spread" if larger_than_spread(row.error, base.error) else "within the spread"
            )
        lines.append(f"- {row.arm.title}: {ratio - 1:+.0%}, {verdict}")
    return "\n".join(lines)


def _spread(values: Sequence[float], digits: int) -> str:
    text = f"{statistics.fmean(values):.{digits}f}"
    return f"{text} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else text


if __name__ == "__main__":
    main()
