"""Write what the runs of `run.py` came to as a page and as CSV.

    python benchmarks/ablation/table.py RUNS --out docs/results-ablation.md [--csv FILE.csv] [--speed]

`--speed` measures how many times faster than the dense encoder each arm's first run is (once; the figures stay in
RUNS/speed.json). The text of the page around the tables is kept.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from arms import Kind
from results import Row, points_gained, read_rows, verdict, with_spread

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
SHIPPED = "quick-"
"""Prefix of the names of the arms that others of the same size are compared with."""
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
    try:
        rows = read_rows(arguments.runs)
        speeds = speed_ups(arguments.runs, rows, measure=arguments.speed)
        write_tables(arguments.out, TITLE, tables(rows, speeds))
        if arguments.csv is not None:
            write_csv(arguments.csv, rows)
    except SlimvoxError as error:
        parser.exit(2, f"{error}\n")


def tables(rows: Sequence[Row], speeds: Mapping[str, float]) -> str:
    """Markdown: the arms at 72 %, what differs by more than the spread, their scores, and the same for other sizes.

    Args:
        rows: what was measured.
        speeds: arm's name to how many times faster than dense it is.
    """
    main_rows = [row for row in rows if row.arm.kind != "size"]
    parts = [_table(main_rows, speeds)]
    for reference, kinds in COMPARISONS.items():
        base = next((row for row in main_rows if row.arm.name == reference), None)
        others = [row for row in main_rows if row.arm.kind in kinds and row is not base]
        if base is not None and others:
            parts.append(_differences(base, others))
    if any(run.scores for row in main_rows for run in row.runs):
        parts.append(_score_table(main_rows))
    sizes = [row for row in rows if row.arm.kind == "size"]
    if sizes:
        parts.append(_table(sizes, speeds))
    for base in sizes:
        others = [row for row in sizes if row.arm.keep == base.arm.keep and row is not base]
        if base.arm.name.startswith(SHIPPED) and others:
            parts.append(_differences(base, others))
    return "\n\n".join(parts)


def write_csv(out: Path, rows: Sequence[Row]) -> None:
    """A line per run; scores that were not measured are empty."""
    fields = ("after_prune", "error", "mapped", "cosine", "parameters", "macs", "mini")
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["arm", "seed", *fields, *METRICS])
        for row in rows:
            for run in row.runs:
                measured = [getattr(run, name) for name in fields] + [
                    run.scores.get(name) for name in METRICS
                ]
                writer.writerow(
                    [row.arm.name, run.seed, *("" if value is None else value for value in measured)]
                )


def speed_ups(folder: Path, rows: Sequence[Row], *, measure: bool) -> dict[str, float]:
    """Speed-up over dense of the first run of each arm, by arm; measured anew if asked for."""
    kept = folder / "speed.json"
    if not measure:
        known: dict[str, float] = json.loads(kept.read_text()) if kept.is_file() else {}
        return known
    dense, speeds = load("embedded"), {}
    for row in rows:
        # In pairs: oneDNN keeps 1,024 kernels, and all arms together need more.
        factors = real_time_factors(
            {"dense": dense, "arm": load(row.runs[0].directory)}, seconds=SPEED_SECONDS, rounds=SPEED_ROUNDS
        )
        speeds[row.arm.name] = factors["dense"] / factors["arm"]
    kept.write_text(json.dumps({**speeds, "threads": torch.get_num_threads()}, indent=1))
    return speeds


def _table(rows: Sequence[Row], speeds: Mapping[str, float]) -> str:
    lines = [
        "| arm | runs | error after surgery | error at the end | after a map | 1 - cosine | parameters | MACs"
        " | speed-up | mini |",
        "|---" * 10 + "|",
    ]
    for row in rows:
        speed_up = speeds.get(row.arm.name)
        cells = [
            row.arm.title,
            str(len(row.runs)),
            with_spread(row.values(lambda run: run.after_prune), 3),
            f"**{with_spread(row.errors, 3)}**",
            with_spread(row.values(lambda run: run.mapped), 3),
            with_spread(row.values(lambda run: run.cosine), 3),
            f"{statistics.fmean(run.parameters for run in row.runs):.1%}",
            f"{statistics.fmean(run.macs for run in row.runs):.0%}",
            "-" if speed_up is None else f"{speed_up:.1f}x",
            with_spread(row.mini, 0),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


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
    lines = [f"| arm | {' | '.join(titles)} |", "|---" * (len(metrics) + 1) + "|"]
    for name, scores in (("log-mel (`fbank`)", fixed.fbank), ("dense teacher", fixed.teacher)):
        cells = [with_spread([scores[metric]], _digits(metric)) for metric in metrics]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for row in rows:
        values = [[run.scores[metric] for run in row.runs if metric in run.scores] for metric in metrics]
        if any(values):
            cells = [with_spread(each, _digits(metric)) for metric, each in zip(metrics, values, strict=True)]
            lines.append(f"| {row.arm.title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _differences(base: Row, rows: Sequence[Row]) -> str:
    """A line per arm: how its error and its points compare with the base's."""
    lines = [
        f"Compared with {base.arm.title}:",
        "",
        "| arm | error at the end | mini |",
        "|---|---|---|",
    ]
    for row in rows:
        ratio = statistics.fmean(row.errors) / statistics.fmean(base.errors)
        cells = [
            row.arm.title,
            f"{ratio - 1:+.0%}, {verdict(row.errors, base.errors)}",
            points_gained(row.mini, base.mini),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _digits(metric: str) -> int:
    return 3 if metric == "qbe" else 1


if __name__ == "__main__":
    main()
