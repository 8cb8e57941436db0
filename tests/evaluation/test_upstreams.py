from __future__ import annotations

from pathlib import Path

import pytest
import torch

import models
from slimvox.errors import SlimvoxError
from slimvox.evaluation.upstreams import load_upstream


def test_the_filter_bank_has_one_state_of_240_dimensions() -> None:
    upstream = load_upstream("fbank")
    assert upstream(torch.randn(2, 1600)).shape == (2, 8, 1, 240)
    assert upstream.frame_rate_hz == 100


def test_random_weights_take_the_shape_of_a_model_and_nothing_else(tmp_path: Path) -> None:
    directory = models.directory(tmp_path / "model", "wavlm")
    model, random = load_upstream(directory), load_upstream(f"random:{directory}")
    assert random.parameters == model.parameters and random.layers == model.layers == 4
    assert random.fingerprint != model.fingerprint
    assert random.fingerprint == load_upstream(f"random:{directory}").fingerprint
    assert random.fingerprint != load_upstream(f"random:{directory}", seed=1).fingerprint
    states = random(torch.randn(1, 4000))
    assert torch.isfinite(states).all() and states.std() > 0.01


def test_the_frame_rate_is_that_of_the_encoder(tmp_path: Path) -> None:
    directory = models.directory(tmp_path / "model", "hubert", conv_stride=(5, 2, 4))
    upstream = load_upstream(directory)
    assert upstream.frame_rate_hz == 400
    assert load_upstream(models.directory(tmp_path / "other", "hubert")).frame_rate_hz == 800


def test_random_alone_asks_for_a_shape() -> None:
    with pytest.raises(SlimvoxError, match="random:embedded"):
        load_upstream("random")
