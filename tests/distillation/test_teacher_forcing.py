"""Teacher forcing: what each layer starts from, and where gradients end."""

from __future__ import annotations

import pytest
import torch

import models
from slimvox.checkpoint import load_model
from slimvox.encoder import SpeechEncoder
from slimvox.pruning.distillation import teacher_forcing

WAVEFORMS = torch.randn(2, 1200, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=models.LAYOUTS)
def pair(request: pytest.FixtureRequest, tmp_path: object) -> tuple[SpeechEncoder, SpeechEncoder]:
    """A teacher, and a student that differs from it in its first layer only."""
    folder = models.directory(tmp_path / "model", "wavlm", request.param)  # type: ignore[operator]
    teacher, student = load_model(folder).encoder, load_model(folder).encoder
    with torch.no_grad():
        for parameter in student.layers[0].parameters():
            parameter.mul_(1.5)
    return teacher.requires_grad_(False), student.requires_grad_(True)


def test_later_layers_start_from_the_teacher(pair: tuple[SpeechEncoder, SpeechEncoder]) -> None:
    teacher, student = pair
    wanted = teacher(WAVEFORMS).hidden_states
    with teacher_forcing(student, wanted, 1.0):
        forced = student(WAVEFORMS).hidden_states
    assert not torch.allclose(forced[1], wanted[1], atol=1e-3)  # its own, wrong, not the teacher's
    for own, its in zip(forced[2:], wanted[2:], strict=True):
        torch.testing.assert_close(own, its, atol=1e-5, rtol=1e-5)
    free = student(WAVEFORMS).hidden_states
    assert not torch.allclose(free[2], wanted[2], atol=1e-3)  # and out of the block nothing is left of it


def test_no_gradient_crosses_layers_that_are_forced_altogether(
    pair: tuple[SpeechEncoder, SpeechEncoder],
) -> None:
    teacher, student = pair
    wanted = teacher(WAVEFORMS).hidden_states
    first = next(student.layers[0].parameters())
    for share, crosses in ((1.0, False), (0.5, True)):
        with teacher_forcing(student, wanted, share):
            loss = student(WAVEFORMS).hidden_states[3].square().sum()
        (gradient,) = torch.autograd.grad(loss, first)
        assert bool(gradient.abs().max() > 0) is crosses


def test_a_share_is_mixed_in_by_hand(pair: tuple[SpeechEncoder, SpeechEncoder]) -> None:
    teacher, student = pair
    wanted = teacher(WAVEFORMS).hidden_states
    with teacher_forcing(student, wanted, 0.25):
        states = student(WAVEFORMS).hidden_states
    assert student.rel_attn_embed is not None
    bias = student.rel_attn_embed(wanted[0].shape[1])
    mixed = 0.75 * states[1] + 0.25 * wanted[1]
    torch.testing.assert_close(student.layers[1](mixed, bias, None), states[2], atol=1e-5, rtol=1e-5)


def test_nothing_is_left_after_an_error_and_a_wrong_teacher_is_refused(
    pair: tuple[SpeechEncoder, SpeechEncoder],
) -> None:
    teacher, student = pair
    wanted = teacher(WAVEFORMS).hidden_states
    with pytest.raises(RuntimeError), teacher_forcing(student, wanted, 1.0):
        raise RuntimeError
    assert not any(layer._forward_pre_hooks for layer in student.layers)
    for states, count in ((wanted[1:], 3), ((*wanted, wanted[0]), 5)):
        with (
            pytest.raises(ValueError, match=f"must be 4 hidden states, but are {count}"),
            teacher_forcing(student, states, 1.0),
        ):
            pass
