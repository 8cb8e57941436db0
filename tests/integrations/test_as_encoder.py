"""Models of the Auto classes wherever an encoder is taken: the same numbers as from the encoder that slimvox loads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoModel, AutoModelForCTC

import slimvox
from slimvox.comparison.distance import hidden_state_distances
from slimvox.encoder import EncoderOutput, SpeechEncoder
from slimvox.pruning.masks import Masks, masked_forward
from slimvox.pruning.surgery import slice_encoder
from slimvox.structures import Address


@pytest.fixture(params=[AutoModel, AutoModelForCTC])
def model(request: pytest.FixtureRequest, pruned_large: Path) -> Any:
    """A model of `transformers` with the encoder in it, in training mode, where it would apply SpecAugment."""
    return request.param.from_pretrained(pruned_large, mask_time_prob=0.9).train()


@pytest.fixture
def encoder(pruned_large: Path) -> SpeechEncoder:
    return slimvox.load(pruned_large)


MASKS: Masks = {
    Address("intermediate", 0): torch.tensor([1.0, 0, 1, 0.5, 1, 1, 1]),
    Address("head", 0): torch.tensor([1.0, 0.5]),
    Address("attention", 2): torch.tensor([0.0]),
}
CONV: Masks = {Address("conv", 0): torch.ones(16) / 2}


def assert_same(ours: EncoderOutput, expected: EncoderOutput) -> None:
    for a, b in zip(ours.hidden_states, expected.hidden_states, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(ours.last_hidden_state, expected.last_hidden_state)


@pytest.mark.parametrize(
    "run",
    [
        lambda encoder, x: encoder.as_encoder()(x),
        lambda encoder, x: slice_encoder(encoder, MASKS).encoder(x),
        lambda encoder, x: masked_forward(encoder, {**MASKS, **CONV}, x),
    ],
)
@torch.no_grad()
def test_it_computes_what_the_encoder_computes(
    run: Callable[[Any, torch.Tensor], EncoderOutput], model: Any, encoder: SpeechEncoder
) -> None:
    waveforms = torch.randn(2, 3000)
    assert_same(run(model, waveforms), run(encoder, waveforms))


def test_the_encoder_in_a_model_shares_its_parameters(model: Any) -> None:
    inner = model.as_encoder()
    assert isinstance(inner, SpeechEncoder) and not isinstance(inner, type(model.base_model))
    base = model.base_model
    assert {id(p) for p in inner.parameters()} == {id(p) for p in base.parameters()}
    assert inner.training
    inner(torch.randn(1, 3000)).last_hidden_state.sum().backward()
    assert base.feature_projection.projection.weight.grad is not None


def test_distances_are_those_of_the_encoder(model: Any, encoder: SpeechEncoder, pruned: Path) -> None:
    batches = [torch.randn(1, 3000)]
    other = slimvox.load(pruned)
    ours, expected = (hidden_state_distances(other, each, batches) for each in (model, encoder))
    assert ours == expected
    turned = [hidden_state_distances(each, other, batches) for each in (model, encoder)]
    assert turned[0] == turned[1]


def test_files_are_encoded_and_compared(
    model: Any, encoder: SpeechEncoder, pruned: Path, pruned_large: Path, tmp_path: Path
) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(8_000)
    soundfile.write(tmp_path / "a.wav", noise, 16_000)
    for name, given in (("model", model), ("encoder", encoder)):
        slimvox.encode_files(given, tmp_path / "a.wav", tmp_path / name, device="cpu")
    ours, expected = (np.load(tmp_path / name / "a.npz") for name in ("model", "encoder"))
    for name in expected:
        assert np.array_equal(ours[name], expected[name]), name
    by_object = slimvox.compare(model, tmp_path / "a.wav", teacher=slimvox.load(pruned), device="cpu")
    by_name = slimvox.compare(pruned_large, tmp_path / "a.wav", teacher=pruned, device="cpu")
    assert by_object.sources == by_name.sources
    assert by_object.model == type(model).__name__
    with pytest.raises(slimvox.SlimvoxError, match="does not record a teacher"):
        slimvox.compare(model, tmp_path / "a.wav", device="cpu")


def test_where_a_name_is_needed_an_object_is_one_sentence(model: Any, pruned: Path) -> None:
    for function in (slimvox.load, lambda each: slimvox.carry_head(each, pruned)):
        with pytest.raises(slimvox.SlimvoxError, match=f"but is a {type(model).__name__} instead; save it"):
            function(model)
