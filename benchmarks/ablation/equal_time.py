"""Print how arms compare with `quick` where both take the same measured time, not where they have as many parameters.

    python benchmarks/ablation/equal_time.py docs/results-ablation-1.csv

The argument is the folder of the runs or the CSV of `table.py`, with speed-ups. Each arm stands beside the size of
`quick` with the smallest error among those that are at least as fast.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

from results import Row, difference, markdown, read_rows, with_spread

from slimvox.util.errors import SlimvoxError


def main() -> None:
    """Read and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path)
    arguments = parser.parse_args()
    try:
        print(table(read_rows(arguments.runs)))
    except SlimvoxError as error:
        parser.exit(2, f"{error}\n")


def table(rows: Sequence[Row]) -> str:
    """Markdown: a line per arm that is not `quick`, fastest first.

    Raises:
        SlimvoxError: if no speed was measured.
    """
    timed = [row for row in rows if row.speed_ups]
    if not timed:
        raise SlimvoxError("no run has a speed-up; measure it with table.py --speed")
    lines = []
    quick = [row for row in timed if row.arm.shipped]
    others = [row for row in timed if not row.arm.shipped and row.arm.kind != "idea"]
    for other in sorted(others, key=lambda row: -_speed(row)):
        fast = [row for row in quick if _speed(row) >= _speed(other)]
        cells = [other.arm.title, *_figures(other)]
        if fast:
            best = min(fast, key=lambda row: statistics.fmean(row.errors))
            cells += [f"{1 - best.arm.target.value:.0%} fewer", *_figures(best)]
            cells.append(difference(best.errors, other.errors, percent=True))
            cells.append(difference(best.mini, other.mini))
        else:
            cells += ["none"] + ["-"] * 5
        lines.append(cells)
    figures = ("speed-up", "error", "points")
    return markdown(("arm", *figures, "`quick` as fast", *figures, "its error", "its points"), lines)


def _speed(row: Row) -> float:
    """Rounded, so that what is as fast within what can be measured counts as that."""
    return round(statistics.fmean(row.speed_ups), 1)


def _figures(row: Row) -> list[str]:
    return [f"{_speed(row):.1f}x", with_spread(row.errors, 3), with_spread(row.mini, 0)]


if __name__ == "__main__":
    main()
