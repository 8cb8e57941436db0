"""Muon: torch's own, but for the precision."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slimvox.pruning.muon import Muon, orthogonalised

SHAPES = ((24, 24), (40, 16), (6, 32), (1, 8))


def matrices() -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=draw)) for shape in SHAPES]


def trained(optimiser: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    for _ in range(5):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=draw)
        optimiser.step()
    return [parameter.detach().clone() for parameter in parameters]


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has had Muon since 2.9")
def test_in_bfloat16_it_is_torchs_to_the_last_bit() -> None:
    own, its = matrices(), matrices()
    ours = trained(Muon(own, lr=0.02, weight_decay=0.1, dtype=torch.bfloat16), own)
    torchs = trained(torch.optim.Muon(its, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"), its)
    assert all(torch.equal(first, second) for first, second in zip(ours, torchs, strict=True))


def test_float32_differs_by_rounding() -> None:
    exact, rounded = matrices(), matrices()
    first = trained(Muon(exact, lr=0.02), exact)
    second = trained(Muon(rounded, lr=0.02, dtype=torch.bfloat16), rounded)
    for precise, rough, start in zip(first, second, matrices(), strict=True):
        moved = (precise - start).norm()
        assert 0 < (precise - rough).norm() < 0.05 * moved


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_come_near_one_and_vectors_stay(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    result = orthogonalised(matrix, torch.float32)
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    inside = u.T @ result @ v.T
    large = values > 0.05 * values.max()  # those much smaller are still on their way
    assert ((inside.diagonal()[large] > 0.6) & (inside.diagonal()[large] < 1.3)).all()
    torch.testing.assert_close(inside, torch.diag(inside.diagonal()), atol=1e-4, rtol=0)


def test_updates_are_as_large_as_adamws() -> None:
    matrix = nn.Parameter(torch.zeros(64, 48))
    matrix.grad = torch.randn(64, 48, generator=torch.Generator().manual_seed(3))
    Muon([matrix], lr=1.0).step()
    assert 0.1 < float(matrix.detach().square().mean().sqrt()) < 0.4


def test_a_vector_is_refused() -> None:
    with pytest.raises(ValueError, match="two dimensions"):
        Muon([nn.Parameter(torch.zeros(4))], lr=0.1)
