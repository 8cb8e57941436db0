"""Print how arms compare with `quick` where both take the same measured time, not where they have as many parameters.

    python benchmarks/ablation/equal_time.py docs/results-ablation.csv docs/results-ablation.md

Errors and scores are those of the CSV, speed-ups those in the tables of the page. Each arm stands beside the size of
`quick` with the smallest error among those that are at least as fast. The points are counted with the weights of
mini-SUPERB 2 on the test sets of version 1, which the runs were scored on.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from arms import ARMS, Arm
from results import points_gained, verdict, with_spread

from slimvox.evaluation.points import FixedRows, counted_metrics, mini_score
from slimvox.evaluation.result_table import fixed_rows
from slimvox.util.errors import SlimvoxError

ROUNDING = 0.05
"""Largest rounding error of a speed-up in the page."""


@dataclass(kw_only=True)
class Measured:
    """An arm with its speed-up over the dense encoder, and the errors and points of its runs."""

    arm: Arm
    speed_up: float
    errors: list[float] = field(default_factory=list)
    points: list[float] = field(default_factory=list)

    @property
    def shipped(self) -> bool:
        """True for `quick` at any size."""
        return self.arm.name == "quick" or self.arm.name.startswith("quick-")


def main() -> None:
    """Read and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("csv", type=Path)
    parser.add_argument("page", type=Path)
    arguments = parser.parse_args()
    try:
        print(table(read(arguments.csv, speed_ups(arguments.page.read_text(encoding="utf-8")))))
    except SlimvoxError as error:
        parser.exit(2, f"{error}\n")


def speed_ups(page: str) -> dict[str, float]:
    """Arm's name to its speed-up, from the tables of a page."""
    names = {arm.title: arm.name for arm in ARMS}
    found, column = {}, None
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if "speed-up" in cells:
            column = cells.index("speed-up")
        elif not line.startswith("|"):
            column = None
        elif column is not None and cells[0] in names and cells[column].endswith("x"):
            found[names[cells[0]]] = float(cells[column].rstrip("x"))
    return found


def read(path: Path, speeds: Mapping[str, float]) -> list[Measured]:
    """Arms with a speed-up, in the order of `ARMS`.

    Raises:
        SlimvoxError: if there is none.
    """
    fixed = yardstick()
    metrics = counted_metrics(fixed.tasks)
    found = {arm.name: Measured(arm=arm, speed_up=speeds[arm.name]) for arm in ARMS if arm.name in speeds}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["arm"] in found:
                found[row["arm"]].errors.append(float(row["error"]))
                if all(row[metric] for metric in metrics):
                    scores = {metric: float(row[metric]) for metric in metrics}
                    found[row["arm"]].points.append(mini_score(scores, fixed))
    arms = [each for each in found.values() if each.errors]
    if not arms:
        raise SlimvoxError(f"no arm of {path} has a speed-up in the page")
    return arms


def yardstick() -> FixedRows:
    """Fixed rows of version 1 with the weights of version 2."""
    first, second = fixed_rows(1), fixed_rows()
    assert first is not None and second is not None
    return FixedRows(fbank=first.fbank, teacher=first.teacher, weights=second.weights)


def table(arms: Sequence[Measured]) -> str:
    """Markdown: a line per arm that is not `quick`, fastest first."""
    lines = [
        "| arm | speed-up | error | points | `quick` as fast | speed-up | error | points | its error | its points |",
        "|---" * 10 + "|",
    ]
    quick = [each for each in arms if each.shipped]
    others = [each for each in arms if not each.shipped and each.arm.kind != "idea"]
    for other in sorted(others, key=lambda each: -each.speed_up):
        fast = [each for each in quick if each.speed_up + ROUNDING >= other.speed_up]
        cells = [other.arm.title, *_figures(other)]
        if fast:
            best = min(fast, key=lambda each: statistics.fmean(each.errors))
            change = statistics.fmean(best.errors) / statistics.fmean(other.errors) - 1
            cells += [f"{1 - best.arm.keep:.0%} fewer", *_figures(best)]
            cells.append(f"{change:+.0%}, {verdict(best.errors, other.errors)}")
            cells.append(points_gained(best.points, other.points))
        else:
            cells += ["none"] + ["-"] * 5
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _figures(arm: Measured) -> list[str]:
    return [f"{arm.speed_up:.1f}x", with_spread(arm.errors, 3), with_spread(arm.points, 0)]


if __name__ == "__main__":
    main()
