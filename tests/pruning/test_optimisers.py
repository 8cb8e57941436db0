"""Assignment of parameters to optimisers, and their learning rates."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

import students
from slimvox.checkpoint import load_model
from slimvox.encoder.linear import linear_map
from slimvox.pruning.budget import Lagrangian
from slimvox.pruning.distillation import Distillation
from slimvox.pruning.gates import GateLayout, Gates
from slimvox.pruning.optimisers import MATRICES, WEIGHTS, build_optimisers, rate_share, schedule_rates
from slimvox.pruning.settings import GateSettings, StageSettings
from slimvox.pruning.student import Student
from slimvox.pruning.surgery import slice_encoder
from tiny_runs import make_teacher

STAGE = StageSettings(steps=10, learning_rate=1e-3, warmup_steps=4)
WITH_MUON = dataclasses.replace(STAGE, matrix_optimiser="muon", matrix_rate_factor=3.0)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Student:
    encoder = load_model(make_teacher(tmp_path_factory.mktemp("t"))).encoder.requires_grad_(True)
    gates = Gates(encoder.anatomy, ["intermediate"])
    return Student(encoder, Distillation(encoder.anatomy.width, (0, 2)), gates=gates)


def held(optimiser: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


@pytest.mark.parametrize("stage", [STAGE, WITH_MUON], ids=["adamw", "muon"])
def test_every_parameter_has_one_optimiser(student: Student, stage: StageSettings) -> None:
    optimisers = build_optimisers(student, stage, GateSettings())
    trained = [id(parameter) for optimiser in optimisers.values() for parameter in held(optimiser)]
    assert sorted(trained) == sorted(id(parameter) for parameter in student.parameters())


def test_muon_has_the_linear_maps_and_nothing_else(student: Student) -> None:
    optimisers = build_optimisers(student, WITH_MUON, GateSettings())
    names = {id(parameter): name for name, parameter in student.named_parameters()}
    matrices = {names[id(parameter)] for parameter in held(optimisers[MATRICES])}
    assert "encoder.layers.0.attention.q_proj.weight" in matrices
    assert "distillation.shared_map.weight" in matrices
    # Two dimensions as well, but a table.
    assert "encoder.rel_attn_embed.weight" in {names[id(p)] for p in held(optimisers[WEIGHTS])}
    assert not any("conv" in name or name.endswith("bias") for name in matrices)


def test_maps_with_nothing_left_are_left_aside(student: Student) -> None:
    empty = linear_map(0, 4)
    student.distillation.add_module("empty", empty)
    optimisers = build_optimisers(student, WITH_MUON, GateSettings())
    assert not any(parameter is empty.weight for parameter in held(optimisers[MATRICES]))
    del student.distillation.empty


def test_both_rates_follow_the_schedule(student: Student) -> None:
    optimisers = build_optimisers(student, WITH_MUON, GateSettings(learning_rate=0.5))
    for step, share in ((0, 0.25), (3, 1.0), (4, 1.0), (7, 0.5), (9, 1 / 6)):
        assert rate_share(step, WITH_MUON) == pytest.approx(share)
        assert schedule_rates(optimisers, step, WITH_MUON) == pytest.approx(share)
        assert optimisers[WEIGHTS].param_groups[0]["lr"] == pytest.approx(share * 1e-3)
        assert optimisers[MATRICES].param_groups[0]["lr"] == pytest.approx(share * 3e-3)
        assert optimisers["gates"].param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(("optimiser", "moves"), [("sgd", (-0.5, 0.005)), ("adam", (-0.5, 0.5))])
def test_gates_follow_their_gradient_by_sgd_and_its_sign_by_adam(
    student: Student, optimiser: Literal["adam", "sgd"], moves: tuple[float, float]
) -> None:
    """The multipliers have an optimiser of their own choice."""
    student.lagrangian = Lagrangian()
    settings = GateSettings(optimiser=optimiser, learning_rate=0.5, multiplier_learning_rate=0.25)
    optimisers = build_optimisers(student, STAGE, settings)
    student.lagrangian.linear.grad = torch.tensor(8.0)
    optimisers["multipliers"].step()
    assert float(student.lagrangian.linear.detach()) == pytest.approx(0.25)
    student.lagrangian = None
    assert student.gates is not None
    log_alpha = student.gates.log_alpha
    before = log_alpha.detach().clone()
    gradient = torch.zeros_like(log_alpha)
    gradient[:2] = torch.tensor([1.0, -0.01])
    for _ in range(2):  # without momentum, both steps are alike
        log_alpha.grad = gradient.clone()
        optimisers["gates"].step()
    change = (log_alpha.detach() - before) / 2
    assert change[:2].tolist() == pytest.approx(moves, abs=1e-5) and not change[2:].any()
    with torch.no_grad():
        log_alpha.copy_(before)
    log_alpha.grad = None


def test_an_encoder_without_linear_maps_has_no_muon_and_is_trained_and_resumed(tmp_path: Path) -> None:
    """Whisper's projection is a convolution, and every block is removed."""
    teacher = students.make_teacher(family="whisper")
    layout = GateLayout(teacher.anatomy, ["attention", "feed_forward"])
    bare = slice_encoder(teacher, layout.masks(torch.zeros(layout.size))).encoder
    student = students.make_student(bare)
    stage = students.make_stage(bare, student, tmp_path, matrix_optimiser="muon")
    assert set(stage.optimisers) == {WEIGHTS}
    students.one_step(stage)
    again = students.make_stage(bare, students.make_student(bare), tmp_path, matrix_optimiser="muon")
    again.load_state_dict(stage.state_dict())
    assert again.optimisers[WEIGHTS].state
