"""Arms beside `quick` at the same measured time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from slimvox.util.errors import SlimvoxError

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "ablation"))

import equal_time
from arms import ARMS
from results import Result, Row


def row(name: str, speed: float | None, mini: float | None, *errors: float) -> Row:
    """An arm with a run per error."""
    runs = [
        Result(
            seed=str(number),
            after_prune=0.9,
            error=error,
            mapped=None,
            cosine=0.0,
            parameters=0.28,
            macs=0.3,
            speed_up=speed,
            scores={},
            mini=None if mini is None else mini + 2 * number,
        )
        for number, error in enumerate(errors)
    ]
    return Row(arm=next(arm for arm in ARMS if arm.name == name), runs=tuple(runs))


def test_each_arm_stands_beside_the_best_quick_that_is_as_fast() -> None:
    rows = [
        row("quick", 1.5, 950, 0.1, 0.12),
        row("top-layers", 2.04, 920, 0.4, 0.42),
        row("random", 3.0, None, 0.5),
        row("magnitude", None, 500, 0.6),
        row("maps", 1.2, None, 0.6),
        row("quick-80", 1.96, 930, 0.2, 0.22),
        row("multipliers-80", 2.3, 900, 0.01),
        row("quick-90", 2.4, 840, 0.3),
    ]
    lines = equal_time.table(rows).splitlines()
    assert lines[2] == "| random gates | 3.0x | 0.500 | - | none | - | - | - | - | - |"
    assert lines[3].startswith(
        "| `quick`, multipliers, 80 % fewer | 2.3x | 0.010 | 900 | 90% fewer | 2.4x | 0.300 | 840 |"
    )
    assert lines[4] == (
        "| top layers dropped | 2.0x | 0.410 ± 0.014 | 921 ± 1 | 80% fewer | 2.0x | 0.210 ± 0.014 | 931 ± 1"
        " | **-49 %** (-64 to -34) | **+10** (+4 to +16) |"
    )
    assert len(lines) == 5 and len({line.count("|") for line in lines}) == 1


def test_runs_without_times_are_an_error() -> None:
    with pytest.raises(SlimvoxError, match="no run has a speed-up"):
        equal_time.table([row("quick", None, None, 0.1)])
