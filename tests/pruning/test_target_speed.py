"""`target_speed`: the latency table of a run, its budget, and what happens to both when it is interrupted."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import slimvox
from measures import TABLE
from slimvox.measure.latency import measure
from slimvox.pruning import stage
from slimvox.pruning.checked_files import read_checked_json
from slimvox.pruning.interrupts import RunInterrupted

SETTINGS = ["data.seconds_per_batch=3.0", "data.min_seconds=0.5", "data.max_seconds=1.0", "target.seconds=1"]


def run(teacher: Path, speech: Path, out: Path, speed: str = "2x") -> slimvox.PruneResult:
    return slimvox.prune(
        teacher,
        speech,
        out,
        recipe="quick",
        overrides=SETTINGS,
        target_speed=speed,
        max_steps=4,
        device="cpu",
    )


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Any:
    """In place of measuring: a machine whose table is known."""
    monkeypatch.setattr(measure, "measure_latency", lambda *_, **__: TABLE)
    return TABLE


def test_the_predicted_latency_meets_the_target(
    table: Any, teacher: Path, speech: Path, tmp_path: Path
) -> None:
    result = run(teacher, speech, tmp_path / "out")
    dense, pruned = result.encoder.dense_anatomy, result.encoder.anatomy
    assert 0.9 * table.of(dense) / 2 <= table.of(pruned) <= table.of(dense) / 2
    assert result.speed_up is not None and result.speed_up > 0
    assert read_checked_json(tmp_path / "out" / "run" / "cost.json") == json.loads(
        json.dumps(table.to_dict())
    )
    assert "measured speed" in (tmp_path / "out" / "README.md").read_text()


def test_a_resumed_run_goes_on_with_its_first_table(
    table: Any, teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine may be busier by then: another table would be another target."""
    train_step = stage.Stage._train_step

    def interrupting(self: stage.Stage, batches: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return train_step(self, batches)

    with monkeypatch.context() as patch:
        patch.setattr(stage.Stage, "_train_step", interrupting)
        with pytest.raises(RunInterrupted):
            run(teacher, speech, tmp_path / "out")
    other = replace(TABLE, rest=10 * TABLE.rest)
    monkeypatch.setattr(measure, "measure_latency", lambda *_, **__: other)
    resumed = run(teacher, speech, tmp_path / "out")
    monkeypatch.setattr(measure, "measure_latency", lambda *_, **__: TABLE)
    whole = run(teacher, speech, tmp_path / "whole")
    assert resumed.encoder.anatomy == whole.encoder.anatomy
    for name, weights in whole.encoder.state_dict().items():
        assert torch.equal(weights, resumed.encoder.state_dict()[name])


@pytest.mark.parametrize(
    ("speed", "message"),
    [("1000x", "cannot be reached"), ("0.5x", "speed-up above 1"), ("fast", "such as 4x")],
)
def test_a_speed_out_of_reach_is_one_sentence(
    speed: str, message: str, table: Any, teacher: Path, speech: Path, tmp_path: Path
) -> None:
    with pytest.raises(slimvox.SlimvoxError, match=message):
        run(teacher, speech, tmp_path / "out", speed)
    assert not (tmp_path / "out").exists()
