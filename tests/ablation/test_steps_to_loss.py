"""Steps until runs with and without the straight-through estimator reach a size and a loss."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from slimvox.util.errors import SlimvoxError
from tiny_runs import make_run, make_speech, make_teacher

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "ablation"))

import steps_to_loss
from arms import ARMS

BY_NAME = {arm.name: arm for arm in ARMS}


def stage(losses: list[float], sparsities: list[float]) -> list[dict[str, Any]]:
    """The log of stage 1 of a run that is asked for half."""
    return [
        {
            "step": step,
            "distillation": loss,
            "sparsity": sparsity,
            "target_sparsity": min(0.5, 0.1 * step),
        }
        for step, (loss, sparsity) in enumerate(zip(losses, sparsities, strict=True), start=1)
    ]


def test_steps_by_hand() -> None:
    # Dense for 30 steps without loss, then small; the loss falls by .1 in each step from 4 to 0.
    falling = [4.0 - 0.1 * step for step in range(41)]
    records = stage([0.0] * 30 + falling, [0.2] * 29 + [0.489] + [0.491] * 41)
    # Step 31 is the first small one. The mean of the 20 steps up to the n-th after it is 4 - .1 (n - 9.5).
    losses = [3.06, 3.04, 2.04, 0.9]
    assert steps_to_loss.steps_reached(records, losses) == {
        "size": 31,
        "3.06": 50,
        "3.04": 51,
        "2.04": 61,
        "0.9": None,
    }
    # The same while the gates are open again, but for the last step: its mean is .95.
    for record in records[45:-1]:
        record["sparsity"] = 0.48
    assert steps_to_loss.steps_reached(records, losses[1:3]) == {"size": 31, "3.04": 71, "2.04": 71}


def test_what_is_never_reached_has_no_step() -> None:
    assert steps_to_loss.steps_reached(stage([1.0] * 40, [0.5] * 40), [0.9]) == {"size": 1, "0.9": None}
    assert steps_to_loss.steps_reached(stage([0.1] * 40, [0.4] * 40), [0.9]) == {"size": None, "0.9": None}
    # The mean of fewer steps than 20 counts for nothing.
    assert steps_to_loss.steps_reached(stage([0.1] * 40, [0.5] * 40), [0.9]) == {"size": 1, "0.9": 20}


def pace(name: str, seed: int, size: int | None, **steps: int | None) -> steps_to_loss.Pace:
    measures = {"after_prune": 0.2, "error": 0.001 * (size or 400), "macs": 0.4}
    return steps_to_loss.Pace(
        arm=BY_NAME[name], seed=str(seed), measures=measures, steps={"size": size, **steps}
    )


@pytest.fixture
def runs() -> list[steps_to_loss.Pace]:
    return [
        pace("paper", 0, 100, **{"0.3": 200}),
        pace("paper", 1, 110, **{"0.3": None}),
        pace("paper", 2, 105, **{"0.3": 100}),
        pace("paper-no-ste", 1, 220, **{"0.3": None}),
        pace("paper-no-ste", 0, 110, **{"0.3": 220}),
        pace("paper-sgd", 0, None, **{"0.4": None}),
        pace("paper-no-ste-sgd", 0, None, **{"0.4": 50}),
    ]


def test_tables_by_hand(runs: list[steps_to_loss.Pace]) -> None:
    lines = steps_to_loss.tables(runs).splitlines()
    assert lines[0].startswith("| arm | runs | steps to the size | to a loss of 0.3 | error after surgery |")
    assert lines[2].startswith(
        "| `paper` | 3 | 105 ± 5 | 150 ± 71 (2 of 3) | 0.200 ± 0.000 | 0.105 ± 0.005 |"
    )
    assert lines[3].startswith("| `paper-no-ste` | 2 | 165 ± 78 | 220 (1 of 2) |")
    # Seed by seed: 10/11 and 1/2, whose geometric mean is .674; the logarithms' standard error is .299, t = 12.71.
    assert lines[4].startswith(
        "| first against second | 2 | -33 % (-98 to +2908) | -9 % (one run); 1 of 2 pairs |"
    )
    assert lines[6].startswith("| arm | runs | steps to the size | to a loss of 0.4 | error after surgery |")
    assert lines[8].startswith("| `paper-sgd` | 1 | never | never |")
    assert lines[9].startswith("| `paper-no-ste-sgd` | 1 | never | 50 |")
    assert lines[10].startswith("| first against second | 1 | - | - | +0 % (one run) |")
    assert len(steps_to_loss.tables(runs[:-1]).splitlines()) == 5  # nothing to compare by SGD


def test_a_csv_gives_the_same_tables(runs: list[steps_to_loss.Pace], tmp_path: Path) -> None:
    steps_to_loss.write_csv(tmp_path / "s.csv", runs)
    assert steps_to_loss.read_csv(tmp_path / "s.csv") == runs
    for text in ("arm,seed\nquick,0\n", "arm,seed,loss,after_prune,error,macs,speed_up\nquick,0,,,,,\n", ""):
        (tmp_path / "other.csv").write_text(text)
        with pytest.raises(SlimvoxError, match=r"is not a CSV that steps_to_loss\.py"):
            steps_to_loss.read_csv(tmp_path / "other.csv")


def test_runs_are_read_from_their_folder(tmp_path: Path) -> None:
    teacher, speech = make_teacher(tmp_path / "teacher"), make_speech(tmp_path / "speech")
    overrides = {"gates.sparsity_control": "lagrangian", "gates.optimiser": "sgd", "prune.steps": 24}
    run = tmp_path / "runs" / "paper-sgd" / "0"
    make_run(run, teacher, speech, held_out=speech, settings=overrides)
    make_run(tmp_path / "runs" / "maps" / "0", teacher, speech, held_out=speech)
    (found,) = steps_to_loss.read_folder(tmp_path / "runs")
    assert (found.arm.name, found.seed) == ("paper-sgd", "0") and found.measures["error"] > 0
    records = [json.loads(line) for line in (run / "run" / "log.jsonl").read_text().splitlines()]
    stage_1 = records[:24]
    mean = sum(record["distillation"] for record in stage_1[4:]) / 20
    assert found.measures["loss"] == pytest.approx(mean)
    assert found.steps == steps_to_loss.steps_reached(stage_1, [0.46, 0.44, 0.42])
    with pytest.raises(SlimvoxError, match="no run in"):
        steps_to_loss.read_folder(tmp_path / "nothing")
