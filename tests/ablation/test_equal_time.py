"""Arms beside `quick` at the same measured time."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from slimvox.evaluation.points import METRICS
from slimvox.util.errors import SlimvoxError

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "ablation"))

import equal_time

PAGE = """
| arm | runs | speed-up | mini |
|---|---|---|---|
| `quick`: as shipped | 2 | 1.5x | 965 |
| top layers dropped | 2 | 2.0x | 888 |
| random gates | 1 | 3.0x | 100 |
| smallest weights | 1 | - | 100 |

| arm | error |
|---|---|
| `paper`: its structures and objective | 1.0x |

| arm | runs | speed-up | mini |
|---|---|---|---|
| `quick`, 80 % fewer | 1 | 2.0x | 920 |
| `quick`, multipliers, 80 % fewer | 1 | 2.3x | 920 |
| `quick`, 90 % fewer | 1 | 2.4x | 838 |
"""


def written(path: Path) -> Path:
    """Errors of every arm; the scores of log-mel, and of the teacher for `quick`."""
    fixed = equal_time.yardstick()
    errors = {
        "quick": (0.1, 0.12),
        "top-layers": (0.4, 0.42),
        "random": (0.5,),
        "magnitude": (0.6,),
        "quick-80": (0.2, 0.22),
        "quick-90": (0.3,),
        "multipliers-80": (0.01,),
    }
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["arm", "error", *METRICS], restval="")
        writer.writeheader()
        for arm, values in errors.items():
            row = fixed.teacher if arm.startswith("quick") else fixed.fbank
            scores = {metric: row[metric] for metric in METRICS}
            for value in values:
                writer.writerow({"arm": arm, "error": value, **({} if arm == "random" else scores)})
    return path


def test_each_arm_stands_beside_the_best_quick_that_is_as_fast(tmp_path: Path) -> None:
    speeds = equal_time.speed_ups(PAGE)
    known = {"quick": 1.5, "top-layers": 2.0, "random": 3.0, "quick-80": 2.0, "quick-90": 2.4}
    assert speeds == {**known, "multipliers-80": 2.3}
    arms = equal_time.read(written(tmp_path / "a.csv"), speeds)
    assert [arm.arm.name for arm in arms if arm.shipped] == ["quick", "quick-80", "quick-90"]
    lines = equal_time.table(arms).splitlines()
    assert lines[2] == "| random gates | 3.0x | 0.500 | - | none | - | - | - | - | - |"
    assert lines[3].startswith(
        "| `quick`, multipliers, 80 % fewer | 2.3x | 0.010 | 0 | 90% fewer | 2.4x | 0.300 |"
    )
    assert lines[4] == (
        "| top layers dropped | 2.0x | 0.410 ± 0.014 | 0 ± 0 | 80% fewer | 2.0x | 0.210 ± 0.014 | 1000 ± 0"
        " | -49%, more than the spread | +1000, more than the spread |"
    )
    assert len(lines) == 5 and len({line.count("|") for line in lines}) == 1


def test_a_page_without_these_arms_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SlimvoxError, match=r"no arm of .* has a speed-up"):
        equal_time.read(written(tmp_path / "a.csv"), {})
