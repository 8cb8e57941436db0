"""The Lagrangian, its schedule, the distance between encoders."""

from __future__ import annotations

import pytest
import torch

from measures import COSTS, sparsity_of
from models import config
from slimvox.anatomy import EncoderAnatomy
from slimvox.budget import Lagrangian, scheduled_target
from slimvox.checkpoint.transformers_reader import anatomy_from_config
from slimvox.distance import hidden_state_distance
from slimvox.encoder import SpeechEncoder
from slimvox.gates import Gates
from slimvox.pruning.optimisers import multiplier_optimiser
from slimvox.recipe import GateSettings
from slimvox.structures import structure_names


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


def test_the_target_ramps_linearly() -> None:
    assert [scheduled_target(step, 4, 0.8) for step in range(6)] == pytest.approx(
        [0, 0.2, 0.4, 0.6, 0.8, 0.8]
    )
    assert scheduled_target(0, 0, 0.8) == 0.8


def test_distance_is_zero_for_a_copy_and_one_for_the_mean(anatomy: EncoderAnatomy) -> None:
    encoder, waveforms = SpeechEncoder(anatomy).eval(), [torch.randn(1, 3000)]
    copy = hidden_state_distance(encoder, encoder, waveforms)
    assert copy is not None and copy.relative_error == 0 and copy.cosine == pytest.approx(0, abs=1e-6)
    assert hidden_state_distance(encoder, encoder, []) is None
