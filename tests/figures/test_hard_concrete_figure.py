"""Figure 1: what it draws is the distribution that gates are sampled from."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch

from slimvox.pruning.gates.hard_concrete import BETA, LEFT, RIGHT, stretched
from slimvox.report.figures.hard_concrete import (
    SAMPLES,
    _density,
    gradients,
    hard_concrete_figure,
    share_of_gradient,
    share_with_gradient,
)


def uniform(count: int) -> torch.Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(1))


def test_the_density_is_that_of_samples() -> None:
    edges = np.linspace(0.0, 1.0, 6)
    samples = stretched(torch.zeros(200_000), uniform(200_000)).numpy()
    for low, high in itertools.pairwise(edges):
        grid = np.linspace(low, high, 1001)
        expected = _density(grid).mean() * (high - low)
        assert ((samples > low) & (samples < high)).mean() == pytest.approx(expected, abs=3e-3)


@pytest.mark.parametrize("log_alpha", [-2.0, 0.0, 1.5, 4.6])
def test_the_share_with_a_gradient_is_that_of_samples(log_alpha: float) -> None:
    slopes = gradients(torch.full((200_000,), log_alpha), uniform(200_000), straight_through=False)
    assert float((slopes != 0).float().mean()) == pytest.approx(share_with_gradient(log_alpha), abs=3e-3)


@pytest.mark.parametrize("log_alpha", [-2.2, 0.0, 4.6])
def test_the_share_of_the_mean_gradient_is_that_of_the_means_slopes(log_alpha: float) -> None:
    u = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000
    step = 1e-3

    def slope(values: Callable[[torch.Tensor], torch.Tensor]) -> float:
        above, below = (values(torch.full_like(u, log_alpha + way * step)).mean() for way in (1, -1))
        return float(above - below) / (2 * step)

    expected = slope(lambda at: stretched(at, u).clamp(0, 1)) / slope(lambda at: stretched(at, u))
    assert share_of_gradient(log_alpha) == pytest.approx(expected, rel=1e-3)
    assert share_of_gradient(log_alpha) > share_with_gradient(log_alpha)


def test_the_estimator_gives_clipped_samples_the_gradient_of_unclipped_ones() -> None:
    log_alpha, u = torch.linspace(-6, 6, 500), uniform(500)
    s_bar = stretched(log_alpha, u)
    s = (s_bar - LEFT) / (RIGHT - LEFT)
    slope = (RIGHT - LEFT) * s * (1 - s) / BETA
    inside = (s_bar > 0) & (s_bar < 1)
    torch.testing.assert_close(gradients(log_alpha, u, straight_through=True), slope, atol=1e-5, rtol=1e-4)
    without = gradients(log_alpha, u, straight_through=False)
    torch.testing.assert_close(without, torch.where(inside, slope, 0.0), atol=1e-5, rtol=1e-4)
    assert inside.any() and not inside.all()


def test_the_figure_has_all_samples_in_six_panels() -> None:
    axes = hard_concrete_figure().axes
    assert len(axes) == 6
    for histogram in axes[:2]:
        assert sum(patch.get_height() for patch in histogram.patches) == SAMPLES
    for scatter in axes[2:]:
        assert sum(len(points.get_offsets()) for points in scatter.collections) == SAMPLES
    without, with_estimator = ([points.get_offsets() for points in each.collections] for each in axes[4:])
    assert not np.any(without[1][:, 1]) and np.all(with_estimator[1][:, 1] >= 0)
    assert with_estimator[1][:, 1].max() > 0.05
