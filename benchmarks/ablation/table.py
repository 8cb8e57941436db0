"""Write what the runs of `run.py` came to as a page and as CSV.

    python benchmarks/ablation/table.py RUNS --out docs/results-ablation.md [--csv FILE.csv] [--speed]

RUNS is the folder of the runs, or a CSV that this command wrote. `--speed` measures how many times faster than the
dense encoder each run is (once; the figures stay in RUNS/speed.json). The text of the page around the tables is kept.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from arms import Kind
from results import SPEEDS, Result, Row, difference, markdown, read_rows, with_spread, write_csv

from slimvox.checkpoint.resolve import load
from slimvox.evaluation.points import ERROR_RATES, METRICS
from slimvox.evaluation.result_table import fixed_rows
from slimvox.measure.latency.real_time import real_time_factors
from slimvox.report.write import write_tables
from slimvox.util.errors import SlimvoxError

TITLE = "# Ablation"
SPEED_SECONDS, SPEED_ROUNDS = 10.0, 9
COMPARISONS: Mapping[str, tuple[Kind, ...]] = {
    "paper": ("paper",),
    "quick": ("slimvox", "paper", "control", "idea"),
}
"""Name of an arm to the kinds of arms that are compared with it."""
SIZES: tuple[Kind, ...] = ("size", "target")
"""Kinds of arms at other sizes than 28 % of the parameters."""
METRIC_TITLES = {"sf_f1": "SF F1", "sf_cer": "SF CER", "qbe": "QbE"}


def main() -> None:
    """Read, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--speed", action="store_true")
    arguments = parser.parse_args()
    if arguments.speed and arguments.runs.is_file():
        parser.error("--speed needs the folder of the runs, not a CSV")
    try:
        rows = read_rows(arguments.runs)
        if arguments.speed:
            measure_speed(arguments.runs, rows)
            rows = read_rows(arguments.runs)
        write_tables(arguments.out, TITLE, tables(rows))
        if arguments.csv is not None:
            write_csv(arguments.csv, rows)
    except SlimvoxError as error:
        parser.exit(2, f"{error}\n")


def tables(rows: Sequence[Row]) -> str:
    """Markdown: the arms at 72 %, their differences, their scores, and the same for other sizes and targets."""
    main_rows = [row for row in rows if row.arm.kind not in SIZES]
    parts = [_table(main_rows)]
    for reference, kinds in COMPARISONS.items():
        base = next((row for row in main_rows if row.arm.name == reference), None)
        others = [row for row in main_rows if row.arm.kind in kinds and row is not base]
        if base is not None and others:
            parts.append(_differences(base, others))
    if any(run.scores for row in main_rows for run in row.runs):
        parts.append(_score_table(main_rows))
    sizes = [row for row in rows if row.arm.kind in SIZES]
    if sizes:
        parts.append(_table(sizes))
    for base in sizes:
        others = [row for row in sizes if row.arm.target == base.arm.target and row is not base]
        if base.arm.shipped and others:
            parts.append(_differences(base, others))
    return "\n\n".join(parts)


def measure_speed(folder: Path, rows: Sequence[Row]) -> None:
    """Measure how many times faster than dense each run's encoder is, and keep that in the folder."""
    dense, speeds = load("embedded"), {}
    for row in rows:
        for run in row.runs:
            assert run.directory is not None
            # In pairs: oneDNN keeps 1,024 kernels, and all arms together need more.
            factors = real_time_factors(
                {"dense": dense, "arm": load(run.directory)}, seconds=SPEED_SECONDS, rounds=SPEED_ROUNDS
            )
            speeds[f"{row.arm.name}/{run.seed}"] = factors["dense"] / factors["arm"]
    (folder / SPEEDS).write_text(json.dumps(speeds, indent=1))


def _table(rows: Sequence[Row]) -> str:
    head = ("arm", "runs", "error after surgery", "error at the end", "after a map", "1 - cosine")
    return markdown(
        (*head, "parameters", "MACs", "speed-up", "mini"),
        [
            [
                row.arm.title,
                str(len(row.runs)),
                with_spread(row.values(lambda run: run.after_prune), 3),
                f"**{with_spread(row.errors, 3)}**",
                with_spread(row.values(lambda run: run.mapped), 3),
                with_spread(row.values(lambda run: run.cosine), 3),
                f"{statistics.fmean(run.parameters for run in row.runs):.1%}",
                f"{statistics.fmean(run.macs for run in row.runs):.0%}",
                with_spread(row.speed_ups, 2),
                with_spread(row.mini, 0),
            ]
            for row in rows
        ],
    )


def _score_table(rows: Sequence[Row]) -> str:
    """A line per arm, a column per metric of mini-SUPERB, and the two rows that the points are counted by."""
    fixed = fixed_rows()
    assert fixed is not None
    known = {metric for row in rows for run in row.runs for metric in run.scores}
    metrics = [metric for metric in METRICS if metric in known]
    titles = [
        f"{METRIC_TITLES.get(metric, metric.upper())} {'↓' if metric in ERROR_RATES else '↑'}"
        for metric in metrics
    ]
    lines = []
    for name, scores in (("log-mel (`fbank`)", fixed.fbank), ("dense teacher", fixed.teacher)):
        lines.append([name, *(with_spread([scores[metric]], _digits(metric)) for metric in metrics)])
    for row in rows:
        values = [[run.scores[metric] for run in row.runs if metric in run.scores] for metric in metrics]
        if any(values):
            cells = [with_spread(each, _digits(metric)) for metric, each in zip(metrics, values, strict=True)]
            lines.append([row.arm.title, *cells])
    return markdown(("arm", *titles), lines)


def _differences(base: Row, rows: Sequence[Row]) -> str:
    """A line per arm: how its errors, its points and its cost compare with the base's."""
    measures: tuple[tuple[Callable[[Result], float | None], bool], ...] = (
        (lambda run: run.error, True),
        (lambda run: run.mapped, True),
        (lambda run: run.mini, False),
        (lambda run: run.macs, True),
        (lambda run: run.speed_up, True),
    )
    lines = [
        [
            row.arm.title,
            *(difference(row.values(of), base.values(of), percent=percent) for of, percent in measures),
        ]
        for row in rows
    ]
    head = ("arm", "error at the end", "after a map", "mini, points", "MACs", "speed-up")
    return f"Difference from {base.arm.title}:\n\n{markdown(head, lines)}"


def _digits(metric: str) -> int:
    return 3 if metric == "qbe" else 1


if __name__ == "__main__":
    main()
