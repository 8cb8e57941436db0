"""Outputs read as those of `transformers`, and the names of the arguments of `forward`."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

from drawn import random_encoder
from slimvox.encoder import SpeechEncoder
from small_encoders import wavlm


@pytest.fixture(scope="module")
def encoder() -> SpeechEncoder:
    return random_encoder(wavlm(), seed=0).eval()


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(2, 2000), torch.arange(2000) < torch.tensor([[2000], [900]])


def test_fields_by_place_and_by_name(encoder: SpeechEncoder, batch: tuple[Tensor, Tensor]) -> None:
    output = encoder(*batch)
    last, states, frame_mask = output
    assert (
        last is output[0] is output["last_hidden_state"] is output.last_hidden_state is output.to_tuple()[0]
    )
    assert states is output[1] is output["hidden_states"] is output[:2][1] is output.hidden_states
    assert frame_mask is output[-1] is output.frame_mask and not frame_mask.all()
    assert dict(**output) == dict(output) == dict(zip(output.keys(), output.to_tuple(), strict=True))
    with pytest.raises(KeyError, match="attentions"):
        output["attentions"]
    with pytest.raises(IndexError):
        output[3]


def test_the_old_name_of_the_mask_is_taken_with_a_warning(
    encoder: SpeechEncoder, batch: tuple[Tensor, Tensor]
) -> None:
    waveforms, mask = batch
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = encoder(waveforms, mask)
        named = encoder(waveforms, attention_mask=mask)
    with pytest.warns(DeprecationWarning, match="`attention_mask`"):
        old = encoder(waveforms, mask=mask)
    for output in (named, old):
        assert torch.equal(output.last_hidden_state, expected.last_hidden_state)
    assert not torch.equal(expected.last_hidden_state, encoder(waveforms).last_hidden_state)
    with pytest.raises(TypeError, match="only one of them"):
        encoder(waveforms, mask, mask=mask)
