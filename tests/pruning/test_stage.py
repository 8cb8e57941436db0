"""One stage of training by itself: its rates and targets, the input of a projection, and the noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from slimvox.encoder import SpeechEncoder
from slimvox.pruning import update
from slimvox.pruning.distillation import teacher_forcing
from slimvox.pruning.settings import GateSettings, StageSettings
from slimvox.pruning.stage import Stage
from slimvox.structures import structure_names
from students import STILL, WAVEFORMS, make_stage, make_student, make_teacher, one_step, train


@pytest.fixture(scope="module")
def teacher() -> SpeechEncoder:
    return make_teacher()


def gradients(stage: Stage) -> list[dict[str, Tensor]]:
    """A list that each step adds to: the gradient that every parameter's optimiser was given."""
    seen: list[dict[str, Tensor]] = []

    def look(*_: Any) -> None:
        seen.append({n: p.grad.clone() for n, p in stage.student.named_parameters() if p.grad is not None})

    stage.optimisers["weights"].register_step_pre_hook(look)
    return seen


def norm(tensors: list[Tensor]) -> float:
    return float(torch.linalg.vector_norm(torch.stack([each.norm() for each in tensors])))


# ---- Rates, clipping, forcing


def test_each_optimiser_steps_at_the_rate_of_its_own_schedule(teacher: SpeechEncoder, tmp_path: Path) -> None:
    student = make_student(teacher, structures=structure_names(), initial_quadratic=0.0)
    stage = make_stage(
        teacher,
        student,
        tmp_path,
        sparsity=0.3,
        gates=GateSettings(learning_rate=0.07, multiplier_learning_rate=0.03),
        steps=6,
        learning_rate=2e-3,
        warmup_steps=2,
        matrix_optimiser="muon",
        matrix_rate_factor=3.0,
        weight_decay=0.25,
    )
    rates: dict[str, list[float]] = {name: [] for name in stage.optimisers}
    for name, optimiser in stage.optimisers.items():
        optimiser.register_step_pre_hook(
            lambda inner, *_, seen=rates[name]: seen.append(inner.param_groups[0]["lr"])
        )
    records = train(stage, tmp_path)
    share = [1 / 2, 1, 1, 3 / 4, 2 / 4, 1 / 4]
    assert rates["weights"] == pytest.approx([2e-3 * each for each in share])
    assert rates["matrices"] == pytest.approx([6e-3 * each for each in share])
    assert rates["gates"] == [0.07] * 6 and rates["multipliers"] == [0.03] * 6
    assert [record["learning_rate"] for record in records] == pytest.approx(rates["weights"])
    assert stage.optimisers["weights"].param_groups[0]["weight_decay"] == 0.25
    assert stage.optimisers["matrices"].param_groups[0]["weight_decay"] == 0.25
    assert stage.optimisers["gates"].param_groups[0]["weight_decay"] == 0
    assert stage.optimisers["multipliers"].param_groups[0]["maximize"] is True


@pytest.mark.parametrize("control", ["projection", "lagrangian"])
def test_the_target_of_each_step_is_the_schedules(
    control: str, teacher: SpeechEncoder, tmp_path: Path
) -> None:
    student = make_student(
        teacher, structures=structure_names(), initial_quadratic=5.0 if control == "lagrangian" else None
    )
    stage = make_stage(teacher, student, tmp_path, sparsity=0.4, ramp_steps=4, steps=6)
    records = train(stage, tmp_path)
    assert [record["target_sparsity"] for record in records] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    if control == "lagrangian":
        first = records[1]
        gap = first["sparsity"] - first["target_sparsity"]
        # Logged after the step: the penalty was that of the multipliers before it.
        assert first["penalty"] == pytest.approx(
            records[0]["lambda1"] * gap + records[0]["lambda2"] * gap**2, rel=1e-4
        )


def test_gradients_of_the_weights_are_clipped_and_those_of_the_gates_are_not(
    teacher: SpeechEncoder, tmp_path: Path
) -> None:
    clipped, logged = {}, {}
    for most in (1e-3, 1e6):
        student = make_student(teacher, noise=0.3, structures=structure_names())
        stage = make_stage(teacher, student, tmp_path, sparsity=0.1, gradient_clip=most)
        seen = gradients(stage)
        logged[most] = one_step(stage)["gradient_norm"]
        (clipped[most],) = seen
    names = [name for name in clipped[1e6] if not name.startswith("gates.")]
    whole = norm([clipped[1e6][name] for name in names])
    assert logged[1e-3] == pytest.approx(whole, rel=1e-4) and logged[1e6] == pytest.approx(whole, rel=1e-4)
    assert whole > 0.1
    assert norm([clipped[1e-3][name] for name in names]) == pytest.approx(1e-3, rel=1e-3)
    torch.testing.assert_close(clipped[1e-3]["gates.log_alpha"], clipped[1e6]["gates.log_alpha"])


def test_gradients_do_not_outlive_their_step(teacher: SpeechEncoder, tmp_path: Path) -> None:
    student = make_student(teacher, noise=0.3)
    stage = make_stage(teacher, student, tmp_path, learning_rate=STILL)
    first, second = (one_step(stage)["gradient_norm"] for _ in range(2))
    assert first == pytest.approx(second, rel=1e-5)
    assert all(parameter.grad is None for parameter in student.parameters())


def test_layers_are_forced_as_much_as_the_step_says(teacher: SpeechEncoder, tmp_path: Path) -> None:
    student = make_student(teacher, noise=0.3)
    stage = make_stage(
        teacher,
        student,
        tmp_path,
        learning_rate=STILL,
        steps=8,
        teacher_forcing=0.8,
        teacher_forcing_until=0.5,
    )
    losses = [record["distillation"] for record in train(stage, tmp_path)]
    wanted = teacher(WAVEFORMS)
    for loss, share in zip(losses, (0.8, 0.6, 0.4, 0.2, 0, 0, 0, 0), strict=True):
        with teacher_forcing(student.encoder, wanted.hidden_states, share), torch.no_grad():
            by_hand = student.distillation(student.encoder(WAVEFORMS), wanted).total
        assert loss == pytest.approx(float(by_hand), rel=1e-4)
    assert losses[0] < 0.8 * losses[-1]  # with noise in every layer, a good start makes a smaller error


def test_the_share_of_the_teacher_falls_to_nothing_in_the_middle() -> None:
    settings = StageSettings(steps=20, learning_rate=1.0, teacher_forcing=1.0)
    assert [settings.forced(step) for step in (0, 5, 9, 10, 19)] == pytest.approx([1, 0.5, 0.1, 0, 0])
    never = StageSettings(steps=20, learning_rate=1.0)
    assert not any(never.forced(step) for step in range(20))
    assert StageSettings(steps=10, learning_rate=1.0, teacher_forcing=0.5, teacher_forcing_until=1.0).forced(
        9
    ) == pytest.approx(0.05)


# ---- Input of a projection


def test_a_projection_starts_from_the_gates_before_the_step_and_their_gradients(
    teacher: SpeechEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = make_student(teacher, structures=structure_names())
    assert student.gates is not None
    rate = 0.2
    stage = make_stage(
        teacher,
        student,
        tmp_path,
        sparsity=0.3,
        ramp_steps=6,
        gates=GateSettings(learning_rate=rate),
        steps=6,
    )
    seen, calls, project = gradients(stage), [], update.project

    def looking(gates: Any, before: Tensor, roots: Tensor, *others: Any, **options: Any) -> Any:
        calls.append((before.clone(), gates.log_alpha.detach().clone(), roots.clone(), options))
        result = project(gates, before, roots, *others, **options)
        calls[-1] += (gates.log_alpha.detach().clone(), result)
        return result

    monkeypatch.setattr(update, "project", looking)
    start = student.gates.log_alpha.detach().clone()
    records = train(stage, tmp_path)
    squares = torch.zeros_like(start)
    for step, (before, stepped, roots, options, after, (sparsity, multiplier)) in enumerate(calls, start=1):
        gradient = seen[step - 1]["gates.log_alpha"]
        assert torch.equal(before, start)
        # The first step of Adam is its rate for every gate that has a gradient; later ones are about as long.
        assert float((stepped - before).abs().max()) < 1.5 * rate
        squares = 0.999 * squares + 0.001 * gradient.square()
        torch.testing.assert_close(roots, (squares / (1 - 0.999**step)).sqrt(), rtol=1e-3, atol=1e-9)
        assert options["max_change"] == pytest.approx(5 * rate)
        record = records[step - 1]
        assert record["sparsity"] == float(sparsity)
        if multiplier.isnan():
            assert "lambda1" not in record
        else:
            assert record["lambda1"] == pytest.approx(-float(multiplier) / rate, rel=1e-4)
        start = after
    assert len(calls) == 6 and torch.equal(start, student.gates.log_alpha.detach())
    assert records[-1]["sparsity"] == pytest.approx(0.3, abs=1e-3)
    assert records[-1]["sparsity"] == pytest.approx(float(student.expected_sparsity().detach()), abs=1e-6)


# ---- Noise


def test_noise_is_a_function_of_seed_and_step_and_the_same_in_all_processes(
    teacher: SpeechEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loss(seed: int, step: int, process: int, share: float) -> float:
        structures = () if share else structure_names()
        student = make_student(teacher, structures=structures, initial_drop=0.5, masked_share=share)
        stage = make_stage(teacher, student, tmp_path, seed=seed, sparsity=None if share else 0.5)
        stage.step = step
        with monkeypatch.context() as patch:
            patch.setattr(Accelerator, "process_index", property(lambda self: process))
            torch.rand(17)  # what others drew in between has no say
            return one_step(stage)["distillation"]

    for share in (0.0, 0.5):  # masks in stage 1, hidden frames in stage 2
        drawn = [loss(*each, share) for each in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1))]
        assert drawn[0] == drawn[3] and len(set(drawn)) == 4
        assert loss(0, 0, 0, share) == drawn[0] and loss(1, 1, 1, share) == drawn[-1]


def test_the_teacher_stays_as_it_is(teacher: SpeechEncoder, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    stage = make_stage(
        teacher, make_student(teacher, noise=0.3, structures=structure_names()), tmp_path, sparsity=0.3
    )
    one_step(stage)
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())
