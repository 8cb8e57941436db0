"""The student's own forward pass: what its loss is made of, and which gradient comes to the gates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from slimvox.encoder import SpeechEncoder
from slimvox.pruning.distillation import HiddenFrames, draw_hidden, hide_frames, teacher_forcing
from slimvox.pruning.gates.hard_concrete import BETA, LEFT, RIGHT, sample, stretched
from slimvox.pruning.masks import masked_forward
from slimvox.pruning.student import StepNoise, Student
from slimvox.structures import structure_names
from students import WAVEFORMS, make_student, make_teacher


@pytest.fixture(scope="module")
def teacher() -> SpeechEncoder:
    return make_teacher()


def noise(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def loss_of(student: Student, teacher: SpeechEncoder, **options: Any) -> dict[str, Tensor]:
    losses: dict[str, Tensor] = student(WAVEFORMS, teacher(WAVEFORMS), noise=drawn(student), **options)
    return losses


def drawn(student: Student) -> StepNoise:
    frames = student.encoder.anatomy.frames(WAVEFORMS.shape[1])
    return student.draw_noise(len(WAVEFORMS), frames, noise())


def test_without_gates_the_loss_is_the_distillation(teacher: SpeechEncoder) -> None:
    student = make_student(teacher, noise=0.3, weights={"relation": 1.5}, maps=True)
    losses = loss_of(student, teacher)
    compared = student.distillation(student.encoder(WAVEFORMS), teacher(WAVEFORMS))
    for name, value in (
        ("loss", compared.total),
        ("distillation", compared.total),
        ("l1", compared.terms["l1"]),
        ("cosine", compared.terms["cosine"]),
        ("relation", compared.terms["relation"]),
    ):
        assert float(losses[name].detach()) == pytest.approx(float(value.detach()), rel=1e-5)
    assert float(losses["loss"].detach()) > 0 and "penalty" not in losses


def test_with_gates_the_student_runs_under_sampled_masks(teacher: SpeechEncoder) -> None:
    student = make_student(teacher, structures=structure_names(), initial_drop=0.4)
    losses, gates = loss_of(student, teacher), student.gates
    assert gates is not None
    output = masked_forward(student.encoder, gates.sample(noise()), WAVEFORMS)
    compared = student.distillation(output, teacher(WAVEFORMS))
    assert float(losses["loss"].detach()) == pytest.approx(float(compared.total.detach()), rel=1e-5)
    assert float(losses["loss"].detach()) > 0.05  # a copy of the teacher without masks has none


def test_the_penalty_is_added(teacher: SpeechEncoder) -> None:
    student = make_student(teacher, structures=structure_names(), initial_quadratic=3.0)
    assert student.lagrangian is not None
    student.lagrangian.linear.data.fill_(-0.8)
    losses = {
        name: float(loss.detach()) for name, loss in loss_of(student, teacher, target_sparsity=0.6).items()
    }
    gap = float(student.expected_sparsity().detach()) - 0.6
    assert gap < -0.4
    assert losses["sparsity"] == pytest.approx(gap + 0.6, abs=1e-6)
    assert losses["penalty"] == pytest.approx(-0.8 * gap + 3.0 * gap**2, rel=1e-5)
    assert losses["loss"] == pytest.approx(losses["distillation"] + losses["penalty"], rel=1e-6)


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_layers_start_from_the_teacher_as_far_as_they_are_forced(
    share: float, teacher: SpeechEncoder
) -> None:
    student = make_student(teacher, noise=0.3)
    wanted = teacher(WAVEFORMS)
    with teacher_forcing(student.encoder, wanted.hidden_states, share):
        forced = student.distillation(student.encoder(WAVEFORMS), wanted).total
    assert float(loss_of(student, teacher, forced=share)["loss"].detach()) == pytest.approx(
        float(forced.detach()), rel=1e-5
    )
    assert float(forced.detach()) < 0.95 * float(loss_of(student, teacher)["loss"].detach())


@pytest.mark.parametrize("gated", [False, True])
def test_hidden_frames_are_hidden_from_the_student_and_do_not_count_in_state_0(
    gated: bool, teacher: SpeechEncoder
) -> None:
    structures = structure_names() if gated else ()
    student = make_student(teacher, structures=structures, masked_share=0.4, weights={"relation": 1.0})
    wanted, generator = teacher(WAVEFORMS), noise()
    masks = None if student.gates is None else student.gates.sample(generator)
    hidden = draw_hidden((2, student.encoder.anatomy.frames(WAVEFORMS.shape[1])), 0.4, generator)
    with hide_frames(student.encoder, hidden):
        output = (
            student.encoder(WAVEFORMS) if masks is None else masked_forward(student.encoder, masks, WAVEFORMS)
        )
    compared = student.distillation(output, wanted, HiddenFrames.of(hidden))
    assert 0.1 < float(hidden.float().mean()) < 0.8
    assert float(loss_of(student, teacher)["loss"].detach()) == pytest.approx(
        float(compared.total.detach()), rel=1e-5
    )
    if not gated:
        assert float(compared.total.detach()) > 0.05  # a copy that sees all has no loss


@pytest.mark.parametrize("straight_through", [True, False])
@pytest.mark.parametrize("structure", structure_names())
def test_the_gradient_of_a_gate_is_the_masks_times_that_of_the_estimator(
    structure: Any, straight_through: bool, teacher: SpeechEncoder
) -> None:
    """d loss / d log_alpha = (d loss / d z) (d s_bar / d log_alpha), and nothing where z is clipped if the estimator is
    not straight through."""
    student = make_student(
        teacher, noise=0.2, structures=[structure], initial_drop=0.3, straight_through=straight_through
    )
    gates = student.gates
    assert gates is not None
    loss_of(student, teacher)["loss"].backward()
    log_alpha = gates.log_alpha.detach()
    u = torch.rand(log_alpha.shape, generator=noise())
    z = sample(log_alpha, u, straight_through=False).requires_grad_()
    output = masked_forward(student.encoder, gates.layout.masks(z), WAVEFORMS)
    (by_mask,) = torch.autograd.grad(student.distillation(output, teacher(WAVEFORMS)).total, z)
    s_bar = stretched(log_alpha, u)
    s = (s_bar - LEFT) / (RIGHT - LEFT)
    slope = (RIGHT - LEFT) * s * (1 - s) / BETA
    if not straight_through:
        slope = slope * ((s_bar > 0) & (s_bar < 1))
    assert gates.log_alpha.grad is not None
    torch.testing.assert_close(gates.log_alpha.grad, by_mask * slope, rtol=1e-4, atol=1e-7)
    assert float(gates.log_alpha.grad.norm()) > 1e-5
    if straight_through:
        assert float((gates.log_alpha.grad != 0).float().mean()) > 0.8


@pytest.mark.parametrize("structure", structure_names())
def test_the_gradient_of_the_gates_is_how_the_loss_changes(structure: Any, teacher: SpeechEncoder) -> None:
    """A small step along it, under the same noise and without the straight-through estimator."""
    student = make_student(
        teacher, noise=0.2, structures=[structure], initial_drop=0.5, straight_through=False
    ).double()
    exact = teacher.double()
    waveforms = WAVEFORMS.double()
    gates = student.gates
    assert gates is not None
    wanted = exact(waveforms)

    def loss() -> Tensor:
        value: Tensor = student(waveforms, wanted, noise=drawn(student))["loss"]
        return value

    (gradient,) = torch.autograd.grad(loss(), gates.log_alpha)
    start, direction, length = gates.log_alpha.detach().clone(), gradient / gradient.norm(), 1e-3
    with torch.no_grad():
        gates.log_alpha.copy_(start + length * direction)
        higher = float(loss())
        gates.log_alpha.copy_(start - length * direction)
        lower = float(loss())
    teacher.float()
    assert (higher - lower) / (2 * length) == pytest.approx(float(gradient.norm()), rel=0.02)
