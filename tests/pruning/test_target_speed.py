"""`target_speed`: the latency table of a run, its budget, and what happens to both when it is interrupted."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import slimvox
from measures import TABLE
from models import config
from slimvox.checkpoint.transformers_config import anatomy_from_config
from slimvox.measure.latency import prepare
from slimvox.pruning import machine_speed, stage
from slimvox.pruning.checked_files import read_checked_json
from slimvox.pruning.gates import GateLayout
from slimvox.pruning.gates.final import or_more_structures
from slimvox.pruning.interrupts import RunInterrupted
from slimvox.structures import structure_names
from speed_runs import prune_for_speed


def test_the_predicted_latency_meets_the_target(
    table: Any, teacher: Path, speech: Path, tmp_path: Path
) -> None:
    result = prune_for_speed(teacher, speech, tmp_path / "out")
    dense, pruned = result.encoder.dense_anatomy, result.encoder.anatomy
    assert 0.9 * table.of(dense) / 2 <= table.of(pruned) <= table.of(dense) / 2
    assert result.speed_up is not None and result.speed_up > 0
    assert result.predicted_speed_up == table.of(dense) / table.of(pruned)
    assert read_checked_json(tmp_path / "out" / "run" / "cost.json") == json.loads(
        json.dumps(table.to_dict())
    )
    assert "measured speed" in (tmp_path / "out" / "README.md").read_text()


def test_the_target_is_a_share_of_the_measured_time_of_the_dense_encoder(
    teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is faster than the coefficients, which are those of pruned encoders, say."""
    monkeypatch.setattr(
        prepare, "kept_table", lambda context, _: replace(TABLE, dense=0.85 * TABLE.of(context.dense))
    )
    result = prune_for_speed(teacher, speech, tmp_path / "out", speed="1.7x")
    target = 0.85 * TABLE.of(result.encoder.dense_anatomy) / 1.7
    assert 0.95 * target <= TABLE.of(result.encoder.anatomy) <= target


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
            prune_for_speed(teacher, speech, tmp_path / "out")
    other = replace(TABLE, rest=10 * TABLE.rest)
    monkeypatch.setattr(prepare, "kept_table", lambda *_: other)
    resumed = prune_for_speed(teacher, speech, tmp_path / "out")
    monkeypatch.setattr(prepare, "kept_table", lambda *_: TABLE)
    whole = prune_for_speed(teacher, speech, tmp_path / "whole")
    assert resumed.encoder.anatomy == whole.encoder.anatomy
    for name, weights in whole.encoder.state_dict().items():
        assert torch.equal(weights, resumed.encoder.state_dict()[name])


@pytest.mark.parametrize(
    ("speed", "message"),
    [
        ("1000x", "cannot be reached: the largest speed-up with the structures chosen is .*x"),
        ("0.5x", "speed-up above 1"),
        ("fast", "such as 4x"),
    ],
)
def test_a_speed_out_of_reach_is_one_sentence(
    speed: str, message: str, table: Any, teacher: Path, speech: Path, tmp_path: Path
) -> None:
    with pytest.raises(slimvox.SlimvoxError, match=message):
        prune_for_speed(teacher, speech, tmp_path / "out", speed)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_speed": "2x", "runtime": "abacus"}, "abacus"),
        ({"target_macs": "50%", "runtime": "onnx"}, "`target.runtime` is for a target in time"),
        ({"target_speed": "2x", "runtime": "openvino-bf16"}, r"slimvox\[openvino\]"),
    ],
)
def test_a_runtime_that_cannot_be_used_is_one_sentence(
    options: dict[str, str],
    message: str,
    teacher: Path,
    speech: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(slimvox.SlimvoxError, match=message):
        slimvox.prune(teacher, speech, tmp_path / "out", recipe="quick", device="cpu", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_the_target_is_a_speed_in_the_runtime_that_was_asked_for(
    teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def table(context: Any, _: Any) -> Any:
        asked.append(context.runtime)
        return replace(TABLE, runtime=context.runtime)

    def milliseconds(encoders: Any, *, backend: str, **_: Any) -> dict[str, tuple[float, ...]]:
        asked.append(backend)
        return {"dense": (3.0, 90.0, 3.0), "pruned": (1.0, 1.0, 80.0)}

    monkeypatch.setattr(prepare, "kept_table", table)
    monkeypatch.setattr(machine_speed, "encoder_milliseconds", milliseconds)
    result = prune_for_speed(teacher, speech, tmp_path / "out", runtime="torch-bf16")
    assert asked == ["torch-bf16", "torch-bf16"] and result.speed_up == 3.0
    assert read_checked_json(tmp_path / "out" / "run" / "cost.json")["runtime"] == "torch-bf16"


def test_sizes_are_checked_before_the_machine_is_measured(
    teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*_: Any) -> Any:
        raise AssertionError("this machine was measured")

    monkeypatch.setattr(prepare, "kept_table", measured)
    overrides = ["target.kind=latency"]
    with pytest.raises(slimvox.SlimvoxError, match="60% in it more than once"):
        prune_for_speed(teacher, speech, tmp_path / "out", None, sizes="60%,60%", overrides=overrides)


def test_structures_that_are_pruned_already_are_not_advised() -> None:
    anatomy = anatomy_from_config(config("wavlm").to_dict(), "test", normalize_waveform=False)
    assert "`conv`" in or_more_structures(GateLayout(anatomy, ["head", "intermediate"]))
    advice = or_more_structures(GateLayout(anatomy, ["conv"]))
    assert advice and "`conv`" not in advice
    assert or_more_structures(GateLayout(anatomy, structure_names())) == ""
