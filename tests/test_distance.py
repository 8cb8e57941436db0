"""The distance between two encoders, against values by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slimvox.distance import hidden_state_distance, hidden_state_distances
from students import make_student, make_teacher

CLIPS = [torch.randn(2, 800), torch.randn(1, 1600)]


class Fixed(nn.Module):
    """An encoder whose hidden states are a function of the samples: a frame of two values for every two samples."""

    def __init__(self, *states: Any) -> None:
        super().__init__()
        self.states = states
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, waveforms: Tensor) -> Any:
        frames = waveforms.unflatten(1, (-1, 2))
        return SimpleNamespace(hidden_states=tuple(state(frames) for state in self.states))


def test_errors_and_cosines_by_hand() -> None:
    """Errors are pooled over clips before they are divided, frames are what cosines are averaged over."""
    teacher: Any = Fixed(lambda x: x, lambda x: 3 * x)
    student: Any = Fixed(lambda x: x + 0.5, lambda x: x @ torch.tensor([[0.0, 3.0], [-3.0, 0.0]]))
    measured = hidden_state_distances(teacher, student, CLIPS)
    assert measured is not None
    frames = [clip.unflatten(1, (-1, 2)) for clip in CLIPS]
    variance = sum(float((each - each.mean((0, 1), keepdim=True)).square().sum()) for each in frames)
    squares = sum(float(each.square().sum()) for each in frames)
    shifted = sum(0.25 * each.numel() for each in frames)
    assert measured.relative_errors == pytest.approx([shifted / variance, 2 * squares / variance], rel=1e-4)
    flat = torch.cat([each.reshape(-1, 2) for each in frames])
    cosine = 1 - float(torch.cosine_similarity(flat, flat + 0.5, dim=-1).mean())
    assert measured.cosines == pytest.approx([cosine, 1.0], rel=1e-4)  # the second is turned by a right angle
    assert measured.seconds == pytest.approx(3200 / 16_000)
    mean = hidden_state_distance(teacher, student, CLIPS)
    assert mean == measured.mean
    assert mean is not None
    assert mean.relative_error == pytest.approx(sum(measured.relative_errors) / 2)
    assert mean.cosine == pytest.approx(sum(measured.cosines) / 2)


def test_a_copy_is_at_distance_0_and_a_constant_at_1() -> None:
    copy = make_teacher()
    measured = hidden_state_distances(copy, copy, CLIPS)
    assert measured is not None and len(measured.relative_errors) == len(copy.layers) + 1
    assert max(measured.relative_errors) == 0 and max(measured.cosines) == pytest.approx(0, abs=1e-5)
    clip = torch.randn(1, 800)
    mean = clip.unflatten(1, (-1, 2)).mean((0, 1))
    teacher: Any = Fixed(lambda x: x)
    constant: Any = Fixed(mean.expand_as)
    measured = hidden_state_distances(teacher, constant, [clip])
    assert measured is not None and measured.relative_errors == pytest.approx([1.0], rel=1e-4)


def test_the_further_the_weights_the_greater_the_distance() -> None:
    teacher = make_teacher()
    near, far = (
        hidden_state_distance(teacher, make_student(teacher, noise=noise).encoder, CLIPS)
        for noise in (0.1, 0.5)
    )
    assert near is not None and far is not None
    assert 0 < near.relative_error < far.relative_error and 0 < near.cosine < far.cosine


def test_nothing_is_differentiated_and_without_audio_there_is_nothing() -> None:
    seen = []

    def state(frames: Tensor) -> Tensor:
        seen.append(torch.is_grad_enabled())
        return frames

    encoder: Any = Fixed(state)
    assert hidden_state_distance(encoder, encoder, []) is None
    assert hidden_state_distances(encoder, encoder, iter(())) is None
    assert hidden_state_distances(encoder, encoder, CLIPS) is not None
    assert seen == [False] * 4
