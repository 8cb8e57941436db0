"""Write the results of `run.py` and `timing.py` as a page.

    python benchmarks/whisper/table.py RUNS --out docs/results-whisper.md [--keep docs/results-whisper.json]

`--keep` writes all figures of both files into one. The text of the page around the tables is kept.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from arms import ARMS, ON_A_GPU, Arm
from scoring import SETS, differences, read_results, summary

from slimvox.report.write import write_tables
from slimvox.util.files import write_atomically

TITLE = "# Whisper base, pruned"
PAIRS = tuple(
    (f"{name}-gpu-0", other)
    for name, other in (
        ("keep-75", "dense"),
        ("keep-50", "dense"),
        ("low-rank", "dense"),
        ("keep-28", "dense"),
        ("keep-50", "low-rank-gpu-0"),
    )
)
"""Encoders whose word errors are compared clip by clip."""


def main() -> None:
    """Read, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, help="folder of results.json and speed.json, or a file of --keep")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    if arguments.runs.is_file():
        content = json.loads(arguments.runs.read_text())
    else:
        content = {
            name: json.loads(file.read_text()) if (file := arguments.runs / f"{name}.json").is_file() else {}
            for name in ("results", "speed")
        }
        for name, result in content["results"].items():
            result["word_errors"] = summary(read_results(arguments.runs / "scores" / name))
        content["differences"] = {
            f"{name} {other}": differences(arguments.runs / "scores", name, other)
            for name, other in PAIRS
            if {name, other} <= set(content["results"])
        }
    if arguments.keep is not None:
        write_atomically(arguments.keep, (json.dumps(content, indent=1) + "\n").encode())
    write_tables(arguments.out, TITLE, tables(**content))


def tables(results: Mapping[str, Any], speed: Mapping[str, Any], differences: Mapping[str, Any]) -> str:
    """Word errors, differences between encoders, and times, as Markdown."""
    dense = results["dense"]["word_errors"]
    lines = [
        "| encoder | runs | steps | windows a step | MACs | error of states | WER, so762 | capped | libri, against"
        " dense | capped |",
        "|---|---|---|---|---|---|---|---|---|---|",
        f"| dense | 1 | - | - | 100 % | 0 | {' | '.join(_word_errors([dense]))} |",
    ]
    for arm in (*ARMS, *ON_A_GPU):
        runs = [each for each in results.values() if each.get("arm") == arm.name]
        if runs:
            lines.append(f"| {' | '.join(_cells(arm, runs))} |")
    parts = ["\n".join(lines)]
    if differences:
        parts.append(_differences(differences))
    if speed:
        parts.append(_speeds(speed["seconds"]))
    recipes = sorted({f"{each['arm']} {each['recipe']}" for each in results.values() if "recipe" in each})
    parts.append(f"Digests of the recipes: {', '.join(recipes)}.")
    return "\n\n".join(parts)


def _differences(differences: Mapping[str, Any]) -> str:
    titles = {f"{arm.name}-0": f"{arm.title}, {arm.batch} windows a step" for arm in ON_A_GPU} | {
        "dense": "dense"
    }
    lines = [
        "| encoder, minus another, in points | so762 | capped | libri, against dense | capped |",
        "|---|---|---|---|---|",
    ]
    for names, found in differences.items():
        cells = [
            "{:+.1f} ({:+.1f} to {:+.1f})".format(*found[name][kind])
            for name in SETS
            for kind in ("wer", "capped")
        ]
        lines.append(f"| {', minus '.join(titles[name] for name in names.split())} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cells(arm: Arm, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        arm.title,
        str(len(runs)),
        f"{runs[0]['steps']:,}",
        str(arm.batch),
        f"{100 * statistics.fmean(run['macs'] for run in runs):.1f} %",
        _spread([run["relative_error"] for run in runs], 3),
        *_word_errors([run["word_errors"] for run in runs]),
    ]


def _word_errors(of: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"{_spread([each[name][rate] for each in of], 1)} %" for name in SETS for rate in ("wer", "capped")
    ]


def _spread(values: Sequence[float], digits: int) -> str:
    text = f"{statistics.fmean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.{digits}f}"


def _speeds(seconds: Mapping[str, Mapping[str, float]]) -> str:
    titles = {"dense": "dense"} | {arm.name: arm.title for arm in ARMS}
    titles |= {arm.name: f"{arm.title}, {arm.batch} windows a step" for arm in ON_A_GPU}
    columns = list(seconds["dense"])
    lines = [f"| encoder | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, times in seconds.items():
        cells = [
            f"{1000 * times[each]:.0f} ms ({seconds['dense'][each] / times[each]:.2f}x)"
            if each in times
            else "-"
            for each in columns
        ]
        lines.append(f"| {titles[name]} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
