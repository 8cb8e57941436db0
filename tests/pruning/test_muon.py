"""Muon: equal to torch's with its polynomials, and near the orthogonal matrix with fewer and better ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from distributed_runs import finish, torchrun
from slimvox.pruning import muon
from slimvox.pruning.muon import COEFFICIENTS, MARGINS, Muon, orthogonalised, shares

SHAPES = ((24, 24), (40, 16), (6, 32), (1, 8), (24, 24), (32, 6))
LOWEST, BAND = 0.01, 0.34
DTYPES = (torch.float32, torch.bfloat16)


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
def test_but_for_how_it_orthogonalises_it_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """With singular vectors computed exactly in either, the steps are the same: momentum, scale, rate and decay."""
    exact = muon_of_svd()
    monkeypatch.setattr(muon, "orthogonalised", lambda stack, dtype: exact(stack))
    monkeypatch.setattr("torch.optim._muon._zeropower_via_newtonschulz", lambda matrix, *_: exact(matrix))
    own, its = matrices(), matrices()
    ours = trained(Muon(own, lr=0.02, weight_decay=0.1), own)
    torchs = trained(torch.optim.Muon(its, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"), its)
    for first, second in zip(ours, torchs, strict=True):
        torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5)


def muon_of_svd() -> Callable[[torch.Tensor], torch.Tensor]:
    """The exact factor U V^T of U S V^T."""

    def exact(matrix: torch.Tensor) -> torch.Tensor:
        u, _, v = torch.linalg.svd(matrix.float(), full_matrices=False)
        return u @ v

    return exact


def test_float32_differs_by_rounding() -> None:
    exact, rounded = matrices(), matrices()
    first = trained(Muon(exact, lr=0.02), exact)
    second = trained(Muon(rounded, lr=0.02, dtype=torch.bfloat16), rounded)
    for precise, rough, start in zip(first, second, matrices(), strict=True):
        moved = (precise - start).norm()
        assert 0 < (precise - rough).norm() < 0.15 * moved


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", sorted({*SHAPES, (16, 25), (30, 60)}))
def test_singular_values_come_near_one_and_vectors_stay(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """For two matrices of different size and spectrum at once."""
    draw = torch.Generator().manual_seed(2)
    stack = torch.randn((2, *shape), generator=draw)
    stack[1] *= 1e-6 * torch.linspace(0.1, 1, shape[1])
    for matrix, result in zip(stack, orthogonalised(stack, dtype).float(), strict=True):
        u, values, v = torch.linalg.svd(matrix, full_matrices=False)
        inside = u.T @ result @ v.T
        # Those much smaller are still on their way.
        large = values > (0.05 if dtype is torch.float32 else 0.2) * values.max()
        rounding = 1e-4 if dtype is torch.float32 else 0.2
        assert ((inside.diagonal()[large] - 1).abs() < BAND + rounding).all()
        assert (inside - torch.diag(inside.diagonal())).norm() < rounding * inside.norm()


def test_rounding_of_a_matrix_of_one_singular_value_is_not_amplified() -> None:
    """The polynomials grow fast beyond 1, and the bound on the singular values is tight there."""
    draw = torch.Generator().manual_seed(4)
    for shape in ((1, 8), (8, 64), (64, 64)):
        left, right = (torch.randn((200, size, 1), generator=draw) for size in shape)
        norms = orthogonalised(left @ right.mT, torch.bfloat16).float().flatten(1).norm(dim=1)
        assert ((norms - 1).abs() < BAND + 0.12).all()


def test_zeros_stay_zeros() -> None:
    assert bool((orthogonalised(torch.zeros(1, 4, 6), torch.float32) == 0).all())


def test_each_polynomial_is_the_best_on_the_interval_that_is_left() -> None:
    """By the theorem of Chebyshev: it goes as far above 1 as below it, four times in turn."""
    low, high = LOWEST, 1.0
    for (a, b, c), margin in zip(COEFFICIENTS, MARGINS, strict=True):
        x = np.linspace(low, high * margin, 200_001)
        error = a * x + b * x**3 + c * x**5 - 1
        furthest = np.abs(error).max()
        inner = [
            place
            for place in range(1, len(x) - 1)
            if (error[place] - error[place - 1]) * (error[place + 1] - error[place]) < 0
        ]
        extremes = error[[0, *inner, -1]]
        np.testing.assert_allclose(extremes, furthest * np.array([-1, 1, -1, 1]), atol=1e-4)
        low, high = 1 - furthest, 1 + furthest
    assert furthest < BAND


def test_updates_are_as_large_as_adamws() -> None:
    matrix = nn.Parameter(torch.zeros(64, 48))
    matrix.grad = torch.randn(64, 48, generator=torch.Generator().manual_seed(3))
    Muon([matrix], lr=1.0).step()
    assert 0.1 < float(matrix.detach().square().mean().sqrt()) < 0.4


def test_many_matrices_of_one_shape_are_computed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts, sizes = matrices(), matrices(), []
    wanted = trained(Muon(whole, lr=0.02), whole)
    plain = muon.orthogonalised

    def recording(stack: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        sizes.append(stack.numel())
        return plain(stack, dtype)

    monkeypatch.setattr(muon, "STACK_ELEMENTS", 700)
    monkeypatch.setattr(muon, "orthogonalised", recording)
    for first, second in zip(trained(Muon(parts, lr=0.02), parts), wanted, strict=True):
        torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5)
    assert max(sizes) <= 700


def test_a_vector_is_refused() -> None:
    with pytest.raises(ValueError, match="two dimensions"):
        Muon([nn.Parameter(torch.zeros(4))], lr=0.1)


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_work_is_shared_evenly(processes: int) -> None:
    layer = [(768, 768)] * 4 + [(3072, 768), (768, 3072)]
    many = [nn.Parameter(torch.empty(shape, device="meta")) for shape in layer * 12]
    given = shares(many, processes)
    assert sorted(id(matrix) for share in given for matrix in share) == sorted(id(matrix) for matrix in many)
    work = [sum(min(matrix.shape) ** 2 * max(matrix.shape) for matrix in share) for share in given]
    assert max(work) < 1.35 * sum(work) / processes


SCRIPT = """
import os, sys
from pathlib import Path
import torch
torch.distributed.init_process_group("gloo")
from pruning import test_muon as test
from slimvox.pruning import muon
plain, counts = muon.orthogonalised, []
def counting(stack, dtype):
    counts.append(len(stack))
    return plain(stack, dtype)
muon.orthogonalised = counting
parameters = test.matrices()
optimiser = muon.Muon(parameters, lr=0.02, weight_decay=0.1)
result = test.trained(optimiser, parameters)
torch.save((result, sum(counts), optimiser.state_dict()), Path({folder!r}) / os.environ["RANK"])
"""


def test_processes_share_the_work_and_have_the_same_weights_and_state(tmp_path: Path) -> None:
    process = torchrun(SCRIPT.format(folder=str(tmp_path)), tmp_path)
    alone = matrices()
    optimiser = Muon(alone, lr=0.02, weight_decay=0.1)
    wanted = trained(optimiser, alone)
    said = finish(process)
    assert process.returncode == 0, said
    (first, own, state), (second, others, _) = (torch.load(tmp_path / str(rank)) for rank in range(2))
    assert own + others == 5 * len(SHAPES) and min(own, others) > 0
    for one, other, expected in zip(first, second, wanted, strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, expected, atol=1e-5, rtol=1e-5)
    # Any number of processes goes on from it.
    for number, each in optimiser.state_dict()["state"].items():
        torch.testing.assert_close(state["state"][number]["momentum_buffer"], each["momentum_buffer"])
