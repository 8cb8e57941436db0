"""Gates on the budget by projection: where they end, how far they move, what becomes of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from measures import COSTS, sparsity_of
from models import config
from nightly import examples
from slimvox.checkpoint.transformers_config import anatomy_from_config
from slimvox.pruning.budget import SparsitySchedule, scheduled_target
from slimvox.pruning.gates import Gates, project, projection
from slimvox.pruning.gates.projection import FLOOR, TOLERANCE
from slimvox.report.charts.training import training_panels
from slimvox.report.runs import read_runs
from slimvox.structures import structure_names
from tiny_runs import make_run

ANATOMY = anatomy_from_config(config("wavlm").to_dict(), "test", normalize_waveform=False)
FAR = 100.0
"""A largest move that is never in the way."""


def random_gates(seed: int) -> tuple[Gates, Tensor]:
    """Gates somewhere between open and closed, and root mean squares of gradients that differ a hundredfold."""
    generator = torch.Generator().manual_seed(seed)
    gates = Gates(ANATOMY, structure_names())
    gates.log_alpha.data = 3 * torch.randn(gates.log_alpha.shape, generator=generator)
    return gates, 10 ** (2 * torch.rand(gates.log_alpha.shape, generator=generator) - 3)


@settings(max_examples=examples(30))
@given(seed=st.integers(0, 10_000), further=st.floats(0.05, 0.9), kind=st.sampled_from(sorted(COSTS)))
def test_gates_below_the_target_close_until_they_meet_it(seed: int, further: float, kind: str) -> None:
    gates, weights = random_gates(seed)
    expected_sparsity = sparsity_of(gates, kind)
    start = float(expected_sparsity().detach())
    before = gates.log_alpha.detach().clone()
    gates.log_alpha.data.fill_(-30.0)
    most = float(expected_sparsity().detach())
    gates.log_alpha.data.copy_(before)
    target = start + further * (most - start)
    reached, multiplier = project(gates, before, weights, expected_sparsity, target, FAR)
    assert multiplier > 0
    assert float(reached) == pytest.approx(target, abs=TOLERANCE)
    assert torch.equal(expected_sparsity().detach(), reached)
    assert bool((gates.log_alpha <= before).all())


@settings(max_examples=examples(30))
@given(seed=st.integers(0, 10_000), back=st.floats(0.0, 1.0))
def test_gates_above_the_target_are_taken_back_and_no_further(seed: int, back: float) -> None:
    gates, weights = random_gates(seed)
    expected_sparsity = sparsity_of(gates)
    before, least = gates.log_alpha.detach().clone(), float(expected_sparsity().detach())
    gates.log_alpha.data -= 0.3 * torch.rand(before.shape, generator=torch.Generator().manual_seed(seed))
    stepped, most = gates.log_alpha.detach().clone(), float(expected_sparsity().detach())
    target = least + back * (most - least)
    reached, _ = project(gates, before, weights, expected_sparsity, target, FAR)
    assert float(reached) == pytest.approx(target, abs=2 * TOLERANCE)
    assert bool((gates.log_alpha >= stepped).all()) and bool((gates.log_alpha <= before).all())
    # Below what it was before the step there is no way back to: the gates are where they were.
    gates.log_alpha.data.copy_(stepped)
    reached, multiplier = project(gates, before, weights, expected_sparsity, least - 0.05, FAR)
    assert multiplier.isnan() and float(reached) == pytest.approx(least, abs=TOLERANCE)


def test_each_gate_moves_by_what_it_saves_over_what_it_matters() -> None:
    gates, weights = random_gates(0)
    expected_sparsity = sparsity_of(gates)
    (slope,) = torch.autograd.grad(expected_sparsity(), gates.log_alpha)
    before = gates.log_alpha.detach().clone()
    target = float(expected_sparsity().detach()) + 0.02
    _, multiplier = project(gates, before, weights, expected_sparsity, target, FAR)
    moves = before - gates.log_alpha.detach()
    wanted = -multiplier * slope / (weights + FLOOR * weights.mean())
    torch.testing.assert_close(moves, wanted, rtol=1e-3, atol=1e-5)


def test_no_gate_moves_further_than_it_may() -> None:
    gates, weights = random_gates(1)
    before = gates.log_alpha.detach().clone()
    reached, multiplier = project(gates, before, weights, sparsity_of(gates), 0.999, 0.5)
    assert multiplier.isnan() and reached < 0.999
    moves = before - gates.log_alpha.detach()
    assert float(moves.max()) == pytest.approx(0.5, abs=1e-5) and float(moves.median()) > 0.4


@pytest.mark.parametrize(("target", "far"), [(0.6, FAR), (0.55, 0.6), (0.05, FAR)])
def test_a_search_whose_end_the_host_does_not_see_gives_the_same(
    target: float, far: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for devices in (("cpu",), ()):
        monkeypatch.setattr(projection, "HOST_DEVICES", devices)
        gates, weights = random_gates(3)
        before = gates.log_alpha.detach().clone()
        projected = project(gates, before, weights, sparsity_of(gates), target, far)
        results.append((gates.log_alpha.detach(), *projected))
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True)


def evaluations(seed: int, target: Callable[[float], float]) -> int:
    """Number of evaluations of the expected sparsity in a projection, from gates with a given one to a target."""
    gates, weights = random_gates(seed)
    expected_sparsity, count = sparsity_of(gates), 0

    def counted() -> Tensor:
        nonlocal count
        count += 1
        return expected_sparsity()

    before, start = gates.log_alpha.detach().clone(), float(expected_sparsity().detach())
    project(gates, before, weights, counted, target(start), FAR)
    return count - 1  # the first gives the slope


@settings(max_examples=examples(30))
@given(seed=st.integers(0, 10_000), further=st.floats(0.001, 0.03))
def test_a_step_of_a_ramp_takes_few_evaluations(seed: int, further: float) -> None:
    """Bisection takes up to 9 for these; the host waits for each, and a device computes all."""
    assert evaluations(seed, lambda start: start + further) <= 6


@pytest.mark.parametrize("seed", [41, 113])
def test_neither_end_of_the_search_creeps(seed: int) -> None:
    """Plain false position takes 14 and 16 evaluations for these steps of 80 % of the way to .95."""
    assert evaluations(seed, lambda start: start + 0.8 * (0.95 - start)) <= 10


def test_gates_without_a_gradient_can_be_projected() -> None:
    gates, _ = random_gates(2)
    reached, multiplier = project(
        gates,
        gates.log_alpha.detach().clone(),
        torch.zeros_like(gates.log_alpha),
        sparsity_of(gates),
        0.7,
        FAR,
    )
    assert multiplier.isfinite() and float(reached) == pytest.approx(0.7, abs=TOLERANCE)


def test_a_geometric_ramp_keeps_the_same_share_in_every_step() -> None:
    kept = [1 - scheduled_target(step, 4, 0.9, shape="geometric") for step in range(6)]
    assert kept == pytest.approx([1, 0.1**0.25, 0.1**0.5, 0.1**0.75, 0.1, 0.1])
    schedule = SparsitySchedule(sparsities=(0.5, 0.75), ramp_steps=4, steps=8, shape="geometric")
    assert schedule.ends == (4, 8)
    assert [1 - schedule.target(step) for step in range(1, 9)] == pytest.approx(
        [0.5**0.5, 0.5, 0.5, 0.5, 0.5**1.5, 0.25, 0.25, 0.25]
    )


def test_a_run_follows_its_ramp(teacher: Path, speech: Path, tmp_path: Path) -> None:
    fields = {
        "gates.sparsity_control": "projection",
        "gates.ramp_shape": "geometric",
        "prune.steps": 12,
        "gates.ramp_steps": 8,
    }
    make_run(tmp_path / "out", teacher, speech, settings=fields)
    records = [json.loads(line) for line in (tmp_path / "out" / "run" / "log.jsonl").read_text().splitlines()]
    first = [record for record in records if record["stage"] == "prune"]
    for record in first[4:]:
        assert record["sparsity"] == pytest.approx(record["target_sparsity"], abs=TOLERANCE)
        assert "penalty" not in record and "lambda2" not in record
    assert first[3]["target_sparsity"] == pytest.approx(1 - math.sqrt(0.28), abs=1e-6)
    assert any(record.get("lambda1", 0) < 0 for record in first)
    page = read_runs([tmp_path / "out"])
    titles = [panel.title for panel in training_panels(page)]
    assert any("λ₁" in title for title in titles) and not any("λ₂" in title for title in titles)
