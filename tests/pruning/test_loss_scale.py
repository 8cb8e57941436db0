"""fp16: the loss is scaled, a scale that is too large is no failure, and a resumed run goes on with the same scale."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from slimvox.encoder import SpeechEncoder
from slimvox.pruning import update
from slimvox.pruning.stage import Stage
from slimvox.structures import structure_names
from slimvox.util.errors import SlimvoxError
from students import WAVEFORMS, make_stage, make_student, make_teacher, one_step, train
from tiny_runs import make_run, make_speech
from tiny_runs import make_teacher as make_tiny_teacher

CONTROLS = ("projection", "lagrangian")


@pytest.fixture(scope="module")
def teacher() -> SpeechEncoder:
    return make_teacher()


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accelerators with a scale, as they have in fp16, which accelerate has on GPUs only."""
    init = Accelerator.__init__

    def with_scaler(self: Accelerator, *arguments: Any, **options: Any) -> None:
        init(self, *arguments, **options)
        self.scaler = torch.amp.GradScaler("cpu")

    monkeypatch.setattr(Accelerator, "__init__", with_scaler)


def stage_of(teacher: SpeechEncoder, folder: Path, control: str = "projection", **settings: Any) -> Stage:
    quadratic = 1.0 if control == "lagrangian" else None
    student = make_student(teacher, noise=0.3, structures=structure_names(), initial_quadratic=quadratic)
    return make_stage(teacher, student, folder, sparsity=0.3, matrix_optimiser="muon", **settings)


def set_scale(stage: Stage, scale: float) -> None:
    assert stage.scaler is not None
    stage.scaler.load_state_dict({**stage.scaler.state_dict(), "scale": scale})


@pytest.mark.parametrize("control", CONTROLS)
def test_a_scale_changes_no_bit_of_a_step_that_does_not_overflow(
    control: str, teacher: SpeechEncoder, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    plain = train(stage_of(teacher, tmp_path, control, steps=4), tmp_path)
    request.getfixturevalue("scaled")
    stage = stage_of(teacher, tmp_path, control, steps=4)
    records = train(stage, tmp_path)
    assert [record.pop("loss_scale") for record in records] == [2.0**16] * 4
    for first, second in zip(plain, records, strict=True):
        del first["audio_seconds_per_second"], second["audio_seconds_per_second"]
        assert first == second


@pytest.mark.usefixtures("scaled")
@pytest.mark.parametrize("control", CONTROLS)
def test_a_scale_that_is_too_large_is_halved_and_is_no_failure(
    control: str, teacher: SpeechEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update, "SKIPS_IN_A_ROW", 2)
    monkeypatch.setattr(Accelerator, "autocast", lambda self: torch.autocast("cpu", dtype=torch.float16))
    stage = stage_of(teacher, tmp_path, control, steps=10)
    set_scale(stage, 2.0**30)
    before = [parameter.detach().clone() for parameter in stage.student.parameters()]
    steps = 0
    while True:
        values = one_step(stage)
        if not stage._skipped:
            break
        assert all(map(torch.equal, before, stage.student.parameters()))
        assert not any(optimiser.state for optimiser in stage.optimisers.values())
        steps += 1
        assert stage.scaler is not None and stage.scaler.get_scale() == 2.0 ** (30 - steps)
    assert steps > 2 and values["loss_scale"] == 2.0 ** (30 - steps)
    assert not all(map(torch.equal, before, stage.student.parameters()))


@pytest.mark.usefixtures("scaled")
def test_gradients_that_are_not_finite_without_a_scale_are_a_failure(
    teacher: SpeechEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update, "SKIPS_IN_A_ROW", 3)
    stage = stage_of(teacher, tmp_path)
    set_scale(stage, 4.0)
    bad = WAVEFORMS * torch.nan
    for _ in range(2 + 2):  # at 4 and 2, which may be the scale's fault, then at 1 and 0.5
        one_step(stage, bad)
    with pytest.raises(SlimvoxError, match="3 steps in a row"):
        one_step(stage, bad)


@pytest.mark.usefixtures("scaled")
def test_a_resumed_stage_goes_on_with_its_scale(teacher: SpeechEncoder, tmp_path: Path) -> None:
    whole = stage_of(teacher, tmp_path, steps=4)
    set_scale(whole, 2.0**10)
    first = stage_of(teacher, tmp_path, steps=4)
    set_scale(first, 2.0**10)
    for _ in range(2):
        one_step(first)
        first.step += 1
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    resumed = stage_of(teacher, tmp_path, steps=4)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    train(resumed, tmp_path)
    train(whole, tmp_path)
    assert whole.scaler is not None and resumed.scaler is not None
    assert resumed.scaler.state_dict() == whole.scaler.state_dict()
    assert resumed.scaler.get_scale() == 2.0**10
    for one, other in zip(whole.student.parameters(), resumed.student.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.usefixtures("scaled")
def test_each_stage_starts_from_the_same_scale(teacher: SpeechEncoder, tmp_path: Path) -> None:
    first = stage_of(teacher, tmp_path)
    set_scale(first, 2.0)
    second = make_stage(teacher, make_student(teacher), tmp_path)
    second.accelerator = first.accelerator
    second.__post_init__()
    assert second.scaler is not None and second.scaler.get_scale() == 2.0**16


@pytest.mark.usefixtures("scaled")
def test_a_student_learns_in_fp16(
    teacher: SpeechEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Accelerator, "autocast", lambda self: torch.autocast("cpu", dtype=torch.float16))
    stage = make_stage(teacher, make_student(teacher, noise=0.3), tmp_path, steps=15, learning_rate=3e-3)
    losses = [record["distillation"] for record in train(stage, tmp_path)]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.usefixtures("scaled")
@pytest.mark.parametrize("control", CONTROLS)
def test_a_whole_run_in_fp16(control: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a cost beyond the range of float16, as that of every encoder in use is."""
    monkeypatch.setattr(Accelerator, "autocast", lambda self: torch.autocast("cpu", dtype=torch.float16))
    result = make_run(
        tmp_path / "out",
        make_tiny_teacher(tmp_path / "teacher"),
        make_speech(tmp_path / "speech"),
        settings={"gates.sparsity_control": control, "distillation.weights.relation": 0.5},
    )
    assert result.parameters_dense > torch.finfo(torch.float16).max
    records = [json.loads(line) for line in (tmp_path / "out" / "run" / "log.jsonl").read_text().splitlines()]
    steps = [(record["stage"], record["step"]) for record in records]
    assert steps == [*(("prune", step) for step in range(1, 7)), *(("finish", step) for step in range(1, 5))]
    assert {record["loss_scale"] for record in records} == {2.0**16}
