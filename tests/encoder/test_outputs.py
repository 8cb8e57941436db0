"""Outputs read as those of `transformers`, and the names of the arguments of `forward`."""

from __future__ import annotations

import pickle
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import scatter_gather
from torch.utils._pytree import tree_map

import slimvox
import whisper_models
from drawn import random_encoder
from slimvox.encoder import EncoderOutput, SpeechEncoder
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


def test_outputs_are_gathered_and_copied_as_named_tuples(
    encoder: SpeechEncoder, batch: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`nn.DataParallel` gathers the outputs of its replicas, on GPUs only, and pytree takes them apart."""
    output = encoder(*batch)
    on_cpu = SimpleNamespace(apply=lambda device, dim, *tensors: torch.cat(tensors, dim))
    monkeypatch.setattr(scatter_gather, "Gather", on_cpu)
    gathered = scatter_gather.gather(
        [encoder(each[None], mask[None]) for each, mask in zip(*batch, strict=True)], 0
    )
    assert type(gathered) is EncoderOutput and torch.equal(gathered.frame_mask, output.frame_mask)
    for ours, expected in zip(gathered.hidden_states, output.hidden_states, strict=True):
        assert ours.shape == expected.shape
    halved = tree_map(lambda tensor: tensor / 2, output)
    assert type(halved) is EncoderOutput
    assert torch.equal(halved.last_hidden_state, output.last_hidden_state / 2)
    again = pickle.loads(pickle.dumps(tree_map(Tensor.detach, output)))
    assert type(again) is EncoderOutput and torch.equal(again.hidden_states[1], output.hidden_states[1])


@pytest.mark.parametrize("family", ["wavlm", "whisper"])
def test_replicas_compute_what_the_encoder_does(
    family: str, encoder: SpeechEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of `nn.DataParallel` have tensors in place of parameters; it copies them to GPUs only."""
    if family == "whisper":
        encoder = slimvox.load(whisper_models.directory(tmp_path / "whisper"))
    module = sys.modules["torch.nn.parallel.replicate"]
    monkeypatch.setattr(module, "_get_device_index", lambda device, *_: device)
    monkeypatch.setattr(
        module, "_broadcast_coalesced_reshape", lambda tensors, *_, **__: [[each.clone() for each in tensors]]
    )
    (replica,) = module.replicate(encoder, ["cpu"])
    assert not [*replica.parameters()]
    waveforms, mask = torch.randn(2, 2000), torch.arange(2000) < torch.tensor([[2000], [900]])
    assert torch.equal(replica(waveforms, mask)[0], encoder(waveforms, mask)[0])


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
