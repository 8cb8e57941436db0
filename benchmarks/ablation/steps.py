"""Prune the embedded teacher by `quick` in few steps and in many, and write a table of error against steps.

    python benchmarks/ablation/steps.py AUDIO... --held-out TEST --out RUNS [--steps 150 300 600 1200] [--seeds 1]

Runs lie in RUNS/STEPS/quick/SEED, the table is RUNS/steps.md. Finished runs are not repeated and unfinished ones go on,
so the command can be stopped and repeated; steps are taken in the order given, so the longest come last.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from arms import ARMS
from results import Row, markdown, read_rows
from run import add_arguments, run

from slimvox.pruning.recipe import load_recipe
from slimvox.report.write import write_tables
from slimvox.util.errors import SlimvoxError

TITLE = "# Error against steps"
ARM = next(arm for arm in ARMS if arm.name == "quick")


def main() -> None:
    """Run what is not finished yet, and write the table of what is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser, seeds=1)
    parser.add_argument("--steps", type=int, nargs="+", default=[150, 300, 600, 1200], help="of both stages")
    arguments = parser.parse_args()
    failed = []
    for steps in arguments.steps:
        of_length = argparse.Namespace(
            **{**vars(arguments), "steps": steps, "out": arguments.out / str(steps), "score": None}
        )
        for seed in range(arguments.seeds):
            failed.append(run(ARM, seed, of_length, arguments.threads or 1))
            _write(arguments.out)
    if any(failed):
        parser.exit(1, f"these failed: {', '.join(name for name in failed if name)}\n")


def _write(out: Path) -> None:
    try:
        write_tables(out / "steps.md", TITLE, table(lengths(out)))
    except SlimvoxError as error:
        print(error, file=sys.stderr)


def lengths(folder: Path) -> dict[int, Row]:
    """The runs of each length that are finished, shortest first."""
    rows = {}
    for path in sorted((each for each in folder.iterdir() if each.name.isdigit()), key=lambda p: int(p.name)):
        try:
            (rows[int(path.name)],) = read_rows(path)
        except SlimvoxError:
            continue  # none is finished
    return rows


def table(rows: Mapping[int, Row]) -> str:
    """Markdown: a line per length; errors are means over seeds.

    Raises:
        SlimvoxError: if there is nothing to show.
    """
    if not rows:
        raise SlimvoxError("no run is finished yet")
    lines = []
    seconds = load_recipe("quick").data.seconds_per_batch
    for steps, row in rows.items():
        first = round(ARM.first_stage * steps)
        rate = statistics.median(audio_rate(each.directory) for each in row.runs)
        cells = (
            f"{steps:,} ({first:,} + {steps - first:,})",
            f"{steps * seconds / 3600:.1f} h",
            f"{steps * seconds / rate / 60:.0f} min",
            f"{statistics.fmean(row.values(lambda each: each.after_prune)):.3f}",
            f"**{statistics.fmean(row.errors):.3f}**",
            str(len(row.runs)),
        )
        lines.append(cells)
    head = (
        "steps (stage 1 + stage 2)",
        "audio seen",
        "time",
        "error after surgery",
        "error at the end",
        "runs",
    )
    return markdown(head, lines)


def audio_rate(directory: Path) -> float:
    """Median over the log of a run of the seconds of audio that it trained on in a second."""
    records: Sequence[Mapping[str, float]] = [
        json.loads(line) for line in (directory / "run" / "log.jsonl").read_text().splitlines()
    ]
    return statistics.median(
        each["audio_seconds_per_second"] for each in records if "audio_seconds_per_second" in each
    )


if __name__ == "__main__":
    main()
