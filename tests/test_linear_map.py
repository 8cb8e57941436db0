"""The error after the best linear map: none for states that hold the same, and never measured where it was fitted."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from slimvox.comparison.distance import hidden_state_distances
from slimvox.comparison.linear_map import HeldOutMap
from test_distance import ANATOMY, Frames, waveform

WIDTH, FRAMES = 6, 40


def states(seed: int, clips: int = 4) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    offset = 3 * torch.randn(WIDTH, generator=draw, dtype=torch.float64)
    return [offset + torch.randn(FRAMES, WIDTH, generator=draw, dtype=torch.float64) for _ in range(clips)]


def error(student: list[Tensor], teacher: list[Tensor]) -> float:
    measured = HeldOutMap()
    for number, pair in enumerate(zip(student, teacher, strict=True)):
        measured.add(number, *pair)
    remaining = measured.squared_error()
    assert remaining is not None
    return remaining / sum(float((each - each.mean(0)).square().sum()) for each in teacher)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100))
def test_an_invertible_map_of_the_states_leaves_no_error(seed: int, scale: float) -> None:
    teacher = states(seed)
    draw = torch.Generator().manual_seed(seed + 1)
    orthogonal = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=draw, dtype=torch.float64))[0]
    stretch = torch.rand(WIDTH, generator=draw, dtype=torch.float64) + 0.5
    student = [scale * each @ orthogonal * stretch + 7.0 for each in teacher]
    assert error(student, teacher) < 1e-6
    assert sum(float((a - b).square().sum()) for a, b in zip(student, teacher, strict=True)) > 0


def test_the_map_is_not_fitted_on_what_it_is_measured_on() -> None:
    # Each half holds the same up to an own linear map: a map that saw the measured clips would fit them.
    teacher = states(0)
    student = [each if number % 2 else each.flip(1) for number, each in enumerate(teacher)]
    assert error(student, teacher) > 1
    noise = states(1)
    assert error(noise, teacher) > 1  # in sample, noise would explain some of it: less than 1


def test_lost_dimensions_are_what_remains() -> None:
    teacher = states(0, clips=60)
    student = [torch.cat([each[:, : WIDTH // 2], 0 * each[:, WIDTH // 2 :]], 1) for each in teacher]
    assert error(student, teacher) == pytest.approx(0.5, abs=0.04)


def test_too_few_frames_give_none() -> None:
    measured = HeldOutMap()
    for number, each in enumerate(states(0, clips=2)):
        measured.add(2 * number, each, each)
    assert measured.squared_error() is None  # nothing in one half
    measured.add(1, *[states(1)[0][: 2 * WIDTH - 1]] * 2)
    assert measured.squared_error() is None
    measured.add(1, *[states(2)[0][:1]] * 2)
    assert measured.squared_error() is not None


def test_a_comparison_measures_both_errors() -> None:
    clips = [waveform(*torch.rand(9, generator=torch.Generator().manual_seed(n)).tolist()) for n in range(4)]
    pair = Frames(ANATOMY), Frames(ANATOMY, factor=-3.0, shift=2.0)
    measured = hidden_state_distances(*pair, clips, mapped=True)  # type: ignore[arg-type]
    plain = hidden_state_distances(*pair, clips)  # type: ignore[arg-type]
    assert measured is not None and plain is not None
    assert measured.relative_errors == plain.relative_errors and plain.mapped_errors is None
    assert measured.relative_errors[1] > 1 and measured.mapped_errors == pytest.approx((0.0, 0.0), abs=1e-3)
    assert measured.mapped_error == pytest.approx(0.0, abs=1e-3)
