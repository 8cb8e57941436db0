from __future__ import annotations

import pytest
import torch

from slimvox.evaluation.whitening import Whitening


def test_no_mean_no_correlation_unit_variance_in_each_layer() -> None:
    frames = torch.randn(4000, 3, 5) @ torch.randn(3, 5, 5)[0] + 7
    whitened = Whitening.fit([frames[:1000], frames[1000:]])(frames)
    for layer in range(3):
        torch.testing.assert_close(whitened[:, layer].mean(0), torch.zeros(5), atol=1e-3, rtol=0)
        covariance = torch.cov(whitened[:, layer].T)
        # The floor takes a little off the directions of least variance.
        assert (covariance - torch.diag(covariance.diag())).abs().max() < 0.05
        assert ((covariance.diag() > 0.7) & (covariance.diag() < 1.001)).all()


def test_a_direction_without_variance_stays_small() -> None:
    frames = torch.randn(500, 1, 4)
    frames[..., 2] = 3.0
    whitened = Whitening.fit([frames])(frames)
    assert torch.isfinite(whitened).all()
    assert whitened[..., 2].abs().max() < 1e-2


def test_nothing_to_measure_on_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        Whitening.fit([])
