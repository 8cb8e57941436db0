"""Steps whose loss or gradients are not finite, in one stage and in whole runs."""

from __future__ import annotations

import contextlib
import copy
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import slimvox
from slimvox.encoder import SpeechEncoder
from slimvox.pruning import stage, student, update
from slimvox.pruning.checked_files import read_checked_state
from slimvox.structures import structure_names
from slimvox.util.errors import SlimvoxError, UnusableResultError
from students import WAVEFORMS, make_stage, make_student, make_teacher, one_step
from tiny_runs import make_run

STEPS = {"finish.steps": 5}


@pytest.fixture(scope="module")
def dense() -> SpeechEncoder:
    return make_teacher()


@pytest.mark.parametrize("control", ["projection", "lagrangian"])
def test_a_step_without_a_finite_gradient_leaves_no_trace(
    control: str, dense: SpeechEncoder, tmp_path: Path
) -> None:
    """Weights, gates, multipliers, and all that the optimisers remember."""
    student = make_student(
        dense, structures=structure_names(), initial_quadratic=1.0 if control == "lagrangian" else None
    )
    stage = make_stage(dense, student, tmp_path, sparsity=0.3, matrix_optimiser="muon")
    for _ in range(2):
        one_step(stage)
        stage.step += 1
    kept = copy.deepcopy(stage.state_dict())
    one_step(stage, WAVEFORMS * torch.nan)
    assert_equal(stage.state_dict(), kept)
    assert all(parameter.grad is None for parameter in student.parameters())
    one_step(stage)
    with pytest.raises(AssertionError):
        assert_equal(stage.state_dict(), kept)


def assert_equal(first: Any, second: Any) -> None:
    """Equal to the bit, through dicts and lists; learning rates, which each step sets anew, left aside."""
    if isinstance(first, Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for name in first.keys() - {"lr"}:
            assert_equal(first[name], second[name])
    elif isinstance(first, list):
        for pair in zip(first, second, strict=True):
            assert_equal(*pair)
    else:
        assert first == second


def test_bad_steps_count_only_in_a_row(
    dense: SpeechEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update, "SKIPS_IN_A_ROW", 3)
    stage = make_stage(dense, make_student(dense), tmp_path)
    bad = WAVEFORMS * torch.nan
    for waveforms in (bad, bad, WAVEFORMS, bad, bad, WAVEFORMS):
        one_step(stage, waveforms)
    one_step(stage, bad)
    one_step(stage, bad)
    with pytest.raises(SlimvoxError, match="3 steps in a row"):
        one_step(stage, bad)


@contextlib.contextmanager
def spoiled_losses(is_spoiled: Callable[[int], bool]) -> Iterator[list[Tensor]]:
    """Losses of a run's n-th steps that are NaN; yields the weights that each step began with, flat."""
    forward, begun_with = student.Student.forward, []

    def spoiling(self: student.Student, *arguments: Any, **options: Any) -> dict[str, Tensor]:
        begun_with.append(torch.cat([parameter.detach().flatten() for parameter in self.parameters()]))
        losses = forward(self, *arguments, **options)
        return {**losses, "loss": losses["loss"] * math.nan} if is_spoiled(len(begun_with)) else losses

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(student.Student, "forward", spoiling)
        # Passes that measure memory and pace before a stage are not steps.
        patch.setattr(stage.Stage, "rehearse", lambda self, waveforms, recompute: None)
        yield begun_with


def test_a_step_without_a_finite_gradient_changes_nothing(
    teacher: Path, speech: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    with spoiled_losses(lambda step: step in (3, 8)) as begun_with:
        make_run(out, teacher, speech, settings=STEPS)
    assert torch.equal(begun_with[2], begun_with[3]) and torch.equal(begun_with[7], begun_with[8])
    assert not torch.equal(begun_with[1], begun_with[2]) and not torch.equal(begun_with[3], begun_with[4])
    assert [record.getMessage() for record in caplog.records if record.name == update.logger.name] == [
        "Skipped step 3 of stage prune: its gradient is not finite.",
        "Skipped step 2 of stage finish: its gradient is not finite.",
    ]
    records = [json.loads(line) for line in (out / "run" / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 4, 5, 6, 1, 3, 4, 5]
    assert all(math.isfinite(record["loss"]) for record in records)


@pytest.mark.parametrize("part", ["gates", "lagrangian"])
def test_a_step_whose_gates_or_multipliers_have_no_finite_gradient_changes_nothing(
    part: str, teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the weights are finite all the same."""
    clip, states = stage.Stage._clip, []

    def spoiling(self: stage.Stage) -> tuple[Tensor, Tensor]:
        if self.name == "prune":
            states.append({name: value.clone() for name, value in self.student.state_dict().items()})
            parameter = next(getattr(self.student, part).parameters())
            if len(states) == 2:
                parameter.grad = torch.full_like(parameter, math.nan)
        return clip(self)

    monkeypatch.setattr(stage.Stage, "_clip", spoiling)
    settings = {"gates.sparsity_control": "lagrangian", "finish.steps": 0, "prune.steps": 3}
    make_run(tmp_path / "out", teacher, speech, settings=settings)
    first, second, third = states
    assert all(torch.equal(second[name], third[name]) for name in second)
    assert not torch.equal(first["gates.log_alpha"], second["gates.log_alpha"])
    assert math.isfinite(second["gates.log_alpha"].sum())


def test_a_run_whose_gradients_stay_bad_stops_with_a_good_checkpoint(
    teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update, "SKIPS_IN_A_ROW", 3)
    out = tmp_path / "out"
    bad = "3 steps in a row were not finite, up to step 5 of stage prune; start again with a lower learning rate"
    with spoiled_losses(lambda step: step >= 3), pytest.raises(SlimvoxError, match=bad):
        make_run(out, teacher, speech, settings=STEPS, checkpoint_seconds=0)
    state = read_checked_state(out / "run" / "checkpoint.pt")["student"]
    assert all(torch.isfinite(values).all() for values in state.values())
    make_run(out, teacher, speech, settings=STEPS)
    assert slimvox.load(out)(torch.randn(1, 8000)).hidden_states[-1].isfinite().all()


def test_a_stage_of_bad_steps_only_is_an_error(teacher: Path, speech: Path, tmp_path: Path) -> None:
    bad = r"no step of stage prune had a finite gradient.*`--set prune.learning_rate=2\.5e-04`"
    with spoiled_losses(lambda step: True), pytest.raises(SlimvoxError, match=bad):
        make_run(tmp_path / "out", teacher, speech, settings={"prune.steps": 2})


def test_the_advice_is_a_quarter_of_the_peak_rate(
    dense: SpeechEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of the rate of a step in the warm-up."""
    monkeypatch.setattr(update, "SKIPS_IN_A_ROW", 1)
    stage = make_stage(dense, make_student(dense), tmp_path, learning_rate=1e-3, warmup_steps=8)
    with pytest.raises(SlimvoxError, match=r"`--set finish.learning_rate=2\.5e-04`"):
        one_step(stage, WAVEFORMS * torch.nan)


def test_a_diverged_encoder_is_not_written_without_held_out_audio(
    teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverging(self: stage.Stage, batches: object) -> tuple[dict[str, float], float]:
        if self.name == "finish":
            next(self.student.encoder.parameters()).data.fill_(math.nan)
        return {"loss": 0.0, "distillation": 0.0}, 0.0

    monkeypatch.setattr(stage.Stage, "_train_step", diverging)
    with pytest.raises(UnusableResultError, match="of the trained encoder are NaN or infinite"):
        make_run(tmp_path / "out", teacher, speech, settings={"data.held_out_seconds": 0.0})
    assert not (tmp_path / "out" / "model.safetensors").exists()
