"""The Lagrangian, its schedule, the distance between encoders."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from measures import COSTS, sparsity_of
from models import config
from slimvox.checkpoint.transformers_config import anatomy_from_config
from slimvox.comparison.distance import hidden_state_distance
from slimvox.costs import Macs, Parameters, cost_kind, macs
from slimvox.encoder import SpeechEncoder
from slimvox.pruning.budget import Budget, Lagrangian, scheduled_target
from slimvox.pruning.gates import Gates
from slimvox.pruning.optimisers import multiplier_optimiser
from slimvox.pruning.settings import GateSettings
from slimvox.structures import structure_names
from slimvox.structures.anatomy import EncoderAnatomy


@pytest.fixture
def anatomy() -> EncoderAnatomy:
    return anatomy_from_config(config("wavlm").to_dict(), "test", normalize_waveform=False)


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [
        (GateSettings(multiplier_learning_rate=0.1), 0.05),
        (
            GateSettings(
                multiplier_optimiser="sgd", multiplier_learning_rate=1.0, initial_quadratic_multiplier=20.0
            ),
            0.01,
        ),
    ],
)
def test_multipliers_ascend_and_drive_the_sparsity_to_its_target(
    settings: GateSettings, tolerance: float, anatomy: EncoderAnatomy
) -> None:
    """With no other loss, gates alone must settle at the target."""
    gates, lagrangian = Gates(anatomy, structure_names()), Lagrangian(settings.initial_quadratic_multiplier)
    expected_sparsity = sparsity_of(gates)
    descent = torch.optim.Adam(gates.parameters(), lr=0.1)
    ascent = multiplier_optimiser(lagrangian, settings)
    for step in range(400):
        sparsity = expected_sparsity()
        lagrangian(sparsity, scheduled_target(step, 100, 0.6)).backward()
        for optimiser in (descent, ascent):
            optimiser.step()
            optimiser.zero_grad()
    assert float(sparsity.detach()) == pytest.approx(0.6, abs=tolerance)
    assert float(lagrangian.quadratic.detach()) > settings.initial_quadratic_multiplier


@pytest.mark.parametrize("kind", COSTS)
def test_sparsity_of_an_open_encoder_is_zero(kind: str, anatomy: EncoderAnatomy) -> None:
    gates = Gates(anatomy, structure_names())
    gates.log_alpha.data.fill_(30.0)
    assert float(sparsity_of(gates, kind)().detach()) == pytest.approx(0.0, abs=1e-5)


def test_the_penalty_by_hand() -> None:
    """lambda1 (s - t) + lambda2 (s - t)^2, and its gradients."""
    lagrangian = Lagrangian(3.0)
    assert [float(each.detach()) for each in (lagrangian.linear, lagrangian.quadratic)] == [0.0, 3.0]
    lagrangian.linear.data.fill_(-2.0)
    sparsity = torch.tensor(0.5, requires_grad=True)
    penalty = lagrangian(sparsity, 0.9)
    assert float(penalty.detach()) == pytest.approx(-2 * -0.4 + 3 * 0.16)
    penalty.backward()
    assert sparsity.grad is not None and float(sparsity.grad) == pytest.approx(-2 + 2 * 3 * -0.4)
    assert lagrangian.linear.grad is not None and float(lagrangian.linear.grad) == pytest.approx(-0.4)
    assert lagrangian.quadratic.grad is not None and float(lagrangian.quadratic.grad) == pytest.approx(0.16)


@pytest.mark.parametrize("kind", COSTS)
def test_expected_sparsity_is_the_share_that_goes(kind: str, anatomy: EncoderAnatomy) -> None:
    """Against the cost of an encoder without its last layer's blocks, and with a gradient that closing is progress."""
    cost = COSTS[kind]
    budget = Budget(cost=cost, target=0.3 * cost.of(anatomy), dense_cost=cost.of(anatomy))
    assert budget.target_sparsity == pytest.approx(0.7)
    last = replace(anatomy.layers[-1], attention=False, heads=(), feed_forward=False, intermediate=0)
    smaller = replace(anatomy, layers=(*anatomy.layers[:-1], last))
    gates = Gates(anatomy, structure_names())
    gates.log_alpha.data.fill_(40.0)
    for address, part in gates.layout.slices.items():
        if address.structure in ("attention", "feed_forward") and address.index == len(anatomy.layers) - 1:
            gates.log_alpha.data[part] = -40.0
    sparsity = sparsity_of(gates, kind)
    assert float(sparsity().detach()) == pytest.approx(1 - cost.of(smaller) / cost.of(anatomy), abs=1e-5)
    gates.log_alpha.data.fill_(1.0)
    sparsity().backward()
    assert gates.log_alpha.grad is not None and bool((gates.log_alpha.grad < 0).all())


def test_budgets_and_costs_that_make_no_sense_are_refused() -> None:
    for target, dense, round_to in (
        (-1.0, 10, 1),
        (math.nan, 10, 1),
        (math.inf, 10, 1),
        (5.0, 0, 1),
        (5.0, 10, 0),
    ):
        with pytest.raises(ValueError, match="must be"):
            Budget(cost=Parameters(), target=target, dense_cost=dense, round_to=round_to)
    for seconds in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="`seconds` must be finite and above 0"):
            Macs(seconds)
    with pytest.raises(KeyError):
        cost_kind("carats")


def test_costs_are_told_in_their_own_unit(anatomy: EncoderAnatomy) -> None:
    told = {kind: cost.describe(26_500_000) for kind, cost in COSTS.items()}
    assert told == {
        "params": "26.5M parameters",
        "macs": "26.5M MACs for 1 s of audio",
        "latency": "26.5 ms for 1 s of audio",
    }
    assert Macs().describe(26_500_000) == "26.5M MACs"
    assert Macs(2.0).of(anatomy) == macs(anatomy, 2.0)
    for kind, cost in COSTS.items():
        assert cost.kind == kind and cost_kind(kind).from_dict(cost.to_dict()) == cost


def test_the_target_ramps_linearly() -> None:
    assert [scheduled_target(step, 4, 0.8) for step in range(6)] == pytest.approx(
        [0, 0.2, 0.4, 0.6, 0.8, 0.8]
    )
    assert scheduled_target(0, 0, 0.8) == 0.8
    assert [scheduled_target(step, 4, 0.8, 0.4) for step in range(6)] == pytest.approx(
        [0.4, 0.5, 0.6, 0.7, 0.8, 0.8]
    )
    geometric = [scheduled_target(step, 2, 0.84, 0.36, "geometric") for step in range(4)]
    assert geometric == pytest.approx([0.36, 0.68, 0.84, 0.84])


def test_distance_is_zero_for_a_copy_and_one_for_the_mean(anatomy: EncoderAnatomy) -> None:
    encoder, waveforms = SpeechEncoder(anatomy).eval(), [torch.randn(1, 3000)]
    copy = hidden_state_distance(encoder, encoder, waveforms)
    assert copy is not None and copy.relative_error == 0 and copy.cosine == pytest.approx(0, abs=1e-6)
    assert hidden_state_distance(encoder, encoder, []) is None
