"""Targets beside each other at the same measured time."""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slimvox.costs import Macs
from slimvox.measure.benchmark import BenchmarkResult
from slimvox.measure.benchmark.result import ContenderReport, Measurement
from slimvox.pruning.recipe import load_recipe
from slimvox.pruning.target import TargetRequest
from slimvox.util.errors import SlimvoxError
from tiny_runs import make_run, make_speech, make_teacher

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "ablation"))

from arms import ARMS, Arm, Target
from run import command

import targets

BY_NAME = {arm.name: arm for arm in ARMS}


def timed(name: str, seed: int, factor: float, speed: float) -> targets.Timed:
    """A run whose error is `factor` times the square of its speed-up, on a straight line in logarithms."""
    ms = dict.fromkeys(targets.PLACES, 50.0 / speed)
    return targets.Timed(
        arm=BY_NAME[name],
        seed=str(seed),
        measures={"error": factor * speed**2, "mapped": factor, "parameters": 0.5, "macs": 0.4},
        milliseconds=ms,
        dense={
            "dense": dict.fromkeys(targets.PLACES, 50.0),
            "transformers": dict.fromkeys(targets.PLACES, 75.0),
        },
    )


@pytest.fixture
def runs() -> list[targets.Timed]:
    found = []
    for seed, factor in enumerate((0.01, 0.011)):
        found += [timed("speed-1.5x", seed, factor, 1.2), timed("speed-4x", seed, factor, 3.2)]
        found += [timed("macs-50", seed, 1.25 * factor, 1.3), timed("macs-10", seed, 1.25 * factor, 3.2)]
        found += [timed("quick-50", seed, 2 * factor + 0.01 * seed, 1.1)]
        found += [timed("quick-90", seed, 2 * factor + 0.01 * seed, 2.3)]
    return found


def test_points_at_equal_time_by_hand(runs: list[targets.Timed]) -> None:
    """Points are interpolated over the logarithm of the speed-up as they are: half way at sqrt(1.2 * 3.2) = 1.96x."""
    points = {"speed-1.5x": (990, 900), "macs-50": (980, 860), "quick-50": (970, 700)}
    scored = []
    for run in runs:
        kind = {"speed": "speed-1.5x", "macs": "macs-50", "parameters": "quick-50"}[run.arm.target.kind]
        value = points[kind][0 if run.arm.name == kind else 1] + 2 * int(run.seed)
        scored.append(replace(run, measures={**run.measures, targets.POINTS: float(value)}))
    speed = math.sqrt(1.2 * 3.2)
    own = [run for run in scored if run.seed == "1"]
    assert targets.at_speed(own, "speed", targets.PLACES[0], targets.POINTS, speed) == pytest.approx(947)
    lines = targets.comparison(scored, targets.PLACES[0], targets.POINTS).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| 1.5x", "| 1.75x", "| 2x", "| mean"]
    two = lines[4].split(" | ")
    # 990 - 90 * log(2 / 1.2) / log(3.2 / 1.2), the same for both seeds but for 2 points.
    assert two[2] == "944 ± 1" and two[4] == "752 ± 1"
    assert two[6].startswith("**+192**")
    assert "points" in targets.tables(scored) and "points" not in targets.tables(runs)


def test_errors_at_equal_time_by_hand(runs: list[targets.Timed]) -> None:
    lines = targets.comparison(runs, targets.PLACES[0], "error").splitlines()
    # 1.25x is below all sizes in MACs and 2.5x above all in parameters.
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| 1.5x", "| 1.75x", "| 2x", "| mean"]
    # Factors .01 and .011, .0125 and .01375, .02 and .032, times 2 squared.
    assert lines[4].startswith(
        "| 2x | 2 | 0.042 ± 0.003 | 0.053 ± 0.004 | 0.104 ± 0.034 | **-20 %** (-20 to -20) |"
    )
    # Ratios 1/2 and 11/32: geometric mean .4146, standard error of the logarithms .1873, t = 12.71 with one degree.
    assert lines[4].endswith("| -59 % (-96 to +348) |") and lines[5].endswith("| -59 % (-96 to +348) |")
    assert len({line.count("|") for line in lines}) == 1


def test_one_seed_has_no_interval(runs: list[targets.Timed]) -> None:
    lines = targets.comparison(runs[:6], targets.PLACES[0], "error").splitlines()
    assert lines[-1] == "| mean | 1 | - | - | - | -20 % (one run) | -50 % (one run) |"


def test_a_csv_gives_the_same_tables(runs: list[targets.Timed], tmp_path: Path) -> None:
    targets.write_csv(tmp_path / "t.csv", runs)
    read = targets.read_csv(tmp_path / "t.csv")
    assert targets.tables(read) == targets.tables(runs)
    assert "| `--target-speed 4x` | 2 | **0.108 ± 0.007** |" in targets.arm_table(read)
    assert "| 3.20x | 3.20x | 4.80x |" in targets.arm_table(read)
    assert [line.split("`")[1][9:] for line in targets.arm_table(read).splitlines()[2:]] == [
        "speed 1.5x",
        "speed 4x",
        "macs 50%",
        "macs 10%",
        "parameters 50%",
        "parameters 10%",
    ]
    (tmp_path / "other.csv").write_text("arm,seed\nquick,0\n")
    with pytest.raises(SlimvoxError, match=r"is not a CSV that targets\.py"):
        targets.read_csv(tmp_path / "other.csv")


def benchmarked(directories: list[Path], milliseconds: float) -> BenchmarkResult:
    """A benchmark in which the dense encoder takes 90 ms in transformers and 60 in torch."""
    contenders = {"t, transformers": 90.0, "t, torch": 60.0}
    contenders |= {f"{each}, torch": milliseconds + place for place, each in enumerate(directories)}
    sizes = [0, 0, *(targets.read_runs([each])[0].parameters for each in directories)]
    reports = [
        ContenderReport(
            label=label,
            model=Path(label.rpartition(", ")[0]).name,
            backend=label.rpartition(", ")[2],
            parameters=size or 0,
            macs_10s=1,
            dense="t, torch",
            file_bytes=1,
            import_seconds=1.0,
            load_seconds=1.0,
            first_call_seconds=1.0,
            peak_memory_bytes=1,
            blocks=None,
        )
        for label, size in zip(contenders, sizes, strict=True)
    ]
    measured = [
        Measurement(label=label, batch=1, seconds=length, threads=count, milliseconds=(time * length / 10,))
        for label, time in contenders.items()
        for length in targets.SECONDS
        for count in targets.THREADS
    ]
    return BenchmarkResult(
        machine={"processor": "p", "threads": 2},
        reference="t, transformers",
        block_seconds=10.0,
        contenders=tuple(reports),
        measurements=tuple(measured),
    )


def test_each_seed_is_timed_once_with_all_its_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, speech = make_teacher(tmp_path / "teacher"), make_speech(tmp_path / "speech")
    folder, calls = tmp_path / "runs", []

    def fake(directories: list[Path], **how: Any) -> BenchmarkResult:
        assert (how["seconds"], how["threads"]) == (targets.SECONDS, targets.THREADS)
        calls.append([path.relative_to(folder).as_posix() for path in directories])
        return benchmarked(directories, 30.0)

    def pruned(name: str, seed: str, **target: str) -> None:
        make_run(folder / name / seed, teacher, speech, held_out=speech, **target)

    monkeypatch.setattr(targets, "benchmark", fake)
    pruned("quick-50", "0", target_parameters="50%")
    pruned("random", "0", target_parameters="40%")  # a control is not compared
    with pytest.raises(SlimvoxError, match="was timed"):
        targets.read_folder(folder)
    for _ in range(2):
        targets.measure(folder)
    assert calls == [["quick-50/0"]]
    pruned("macs-50", "0", target_macs="50%")
    targets.measure(folder)
    assert calls[1:] == [["quick-50/0", "macs-50/0"]]
    first, second = targets.read_folder(folder)
    assert (first.arm.name, second.arm.name, second.seed) == ("quick-50", "macs-50", "0")
    assert second.milliseconds == pytest.approx(
        {
            "10 s, 2 threads": 31.0,
            "10 s, 1 thread": 31.0,
            "2 s, 2 threads": 6.2,
            "2 s, 1 thread": 6.2,
        }
    )
    assert first.speed_up("2 s, 1 thread") == pytest.approx(2)
    assert first.speed_up("2 s, 1 thread", "transformers") == pytest.approx(3)
    assert second.measures["macs"] == pytest.approx(0.5, abs=0.02) and second.measures["error"] > 0


@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm.kind == "target"], ids=lambda arm: arm.name)
def test_an_arm_asks_for_its_target(arm: Arm) -> None:
    where = argparse.Namespace(model="embedded", audio=["a"], held_out=["h"], steps=150, set=[])
    call = list(command(arm, 0, Path("out"), where))
    option = f"--target-{arm.target.kind}"
    assert call[call.index(option) + 1] == arm.target.text
    asked = TargetRequest(**{arm.target.kind: arm.target.text})
    recipe = asked.settings(load_recipe("quick").target)
    share = recipe.keep if arm.target.kind == "speed" else asked.shares_of(1000, Macs(seconds=10.0), 0.0)[0]
    assert share == pytest.approx(1 / arm.target.value if arm.target.kind == "speed" else arm.target.value)


def test_targets_are_written_as_the_command_line_takes_them() -> None:
    assert [Target("speed", 1.5).text, Target("macs", 0.3).text, Target("parameters", 0.28).text] == [
        "1.5x",
        "30%",
        "28%",
    ]
