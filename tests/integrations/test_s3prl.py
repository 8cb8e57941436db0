"""The contract that s3prl's scripts rely on, restated as a stub, and s3prl itself where it is installed."""

import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import models
import slimvox
from slimvox.integrations.s3prl import ENTRY, UpstreamExpert, register, slimvox_local
from slimvox.util.errors import SlimvoxError


class StubFeaturizer(nn.Module):
    """The steps of s3prl's featurizer on an upstream: probe it, then weight its states and cut them to length."""

    def __init__(self, upstream: nn.Module) -> None:
        super().__init__()
        upstream.eval()
        with torch.no_grad():
            states = upstream([torch.randn(16_000)])["hidden_states"]
        assert isinstance(states, (list, tuple))
        self.weights = nn.Parameter(torch.zeros(len(states)))
        self.width = states[0].shape[-1]
        self.downsample_rate = upstream.get_downsample_rates("hidden_states")

    def forward(self, wavs: list[Tensor], features: dict[str, Any]) -> list[Tensor]:
        states = torch.stack(list(features["hidden_states"]))
        mixed = (self.weights.softmax(-1)[:, None, None, None] * states).sum(0)
        assert abs(mixed.shape[1] - round(max(map(len, wavs)) / self.downsample_rate)) < 5
        return [row[: round(len(wav) / self.downsample_rate)] for wav, row in zip(wavs, mixed, strict=True)]


@pytest.fixture(params=["base", "large"])
def checkpoint(request, tmp_path: Path) -> Path:
    return models.directory(tmp_path / request.param, "wavlm", request.param)


def waveforms(*lengths: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [0.3 + 0.1 * torch.randn(length, generator=generator) for length in lengths]


def test_the_embedded_teacher_keeps_the_contract() -> None:
    upstream = slimvox_local(ckpt="embedded", model_config=None, refresh=False)
    assert upstream.get_downsample_rates("hidden_states") == 320
    wavs = waveforms(16_000, 9_000)
    with torch.no_grad():
        output = upstream(wavs)
    states = output["hidden_states"]
    assert len(states) == len(upstream.model.layers) + 1
    assert all(state.shape == (2, 49, upstream.model.anatomy.width) for state in states)
    assert output["last_hidden_state"] is states[-1]
    assert output["hidden_state_1"] is states[1]


def test_a_head_can_be_trained_on_it_as_s3prl_does(checkpoint: Path) -> None:
    upstream = UpstreamExpert(str(checkpoint))
    featurizer = StubFeaturizer(upstream)
    head = nn.Linear(featurizer.width, 3)
    wavs = waveforms(2_000, 1_500)
    features = featurizer(wavs, upstream(wavs))
    assert [len(each) for each in features] == [99, 75]
    torch.stack([head(each.mean(0)) for each in features]).logsumexp(-1).sum().backward()
    assert featurizer.weights.grad is not None
    assert featurizer.weights.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in upstream.model.layers.parameters())


def test_one_waveform_gives_what_the_encoder_gives(checkpoint: Path) -> None:
    upstream, encoder = UpstreamExpert(str(checkpoint)).eval(), slimvox.load(checkpoint)
    (wav,) = waveforms(2_000)
    with torch.no_grad():
        states, expected = upstream([wav])["hidden_states"], encoder(wav[None])
    torch.testing.assert_close(states[0], expected.hidden_states[0])
    torch.testing.assert_close(states[-1], expected.last_hidden_state)


def test_padding_changes_nothing_where_it_cannot(tmp_path: Path) -> None:
    """Large models have no norm over time in the front end, so a clip in a batch is the same as alone."""
    upstream = UpstreamExpert(models.directory(tmp_path / "model", "wavlm", "large")).eval()
    upstream.model.anatomy = (
        upstream.model.anatomy
    )  # as read: normalisation of waveforms is the checkpoint's own
    long, short = waveforms(4_000, 2_500)
    with torch.no_grad():
        together, alone = upstream([long, short])["hidden_states"], upstream([short])["hidden_states"]
    frames = alone[0].shape[1]
    for batched, single in zip(together, alone, strict=True):
        torch.testing.assert_close(batched[1:, :frames], single, atol=1e-4, rtol=1e-4)


def test_waveforms_are_normalised_one_by_one(tmp_path: Path) -> None:
    upstream = UpstreamExpert(models.directory(tmp_path / "model", "hubert", "large")).eval()
    upstream.model.anatomy = replace(upstream.model.anatomy, normalize_waveform=True)
    long, short = waveforms(4_000, 2_500)
    with torch.no_grad():
        states = upstream([long, short])["hidden_states"][-1]
        scaled = upstream([7 * long - 1, 0.2 * short + 3])["hidden_states"][-1]
    torch.testing.assert_close(states[0], scaled[0], atol=1e-3, rtol=1e-3)
    frames = upstream.model.anatomy.frames(2_500)
    torch.testing.assert_close(states[1, :frames], scaled[1, :frames], atol=1e-3, rtol=1e-3)


def test_very_short_waveforms_give_a_frame() -> None:
    with torch.no_grad():
        states = slimvox_local("embedded")(waveforms(10, 200))["hidden_states"]
    assert states[0].shape[:2] == (2, 1)
    assert all(state.isfinite().all() for state in states)


def test_bad_input(tmp_path: Path) -> None:
    upstream = slimvox_local("embedded")
    for wavs in ([], [torch.zeros(2, 16_000)]):
        with pytest.raises(ValueError, match="one 1-D tensor"):
            upstream(wavs)
    with pytest.raises(SlimvoxError, match="leave out `-g`"):
        slimvox_local("embedded", "config.yaml")
    with pytest.raises(SlimvoxError):
        slimvox_local(tmp_path / "nowhere")


def test_registering_adds_the_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = types.ModuleType("s3prl.hub")
    monkeypatch.setitem(sys.modules, "s3prl", types.ModuleType("s3prl"))
    monkeypatch.setitem(sys.modules, "s3prl.hub", hub)
    register()
    assert getattr(hub, ENTRY) is slimvox_local


def test_registering_without_s3prl_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3prl.hub", None)
    with pytest.raises(SlimvoxError, match="pip install espnet-s3prl"):
        register()


def test_in_s3prl_itself() -> None:
    networks = pytest.importorskip("s3prl.nn", exc_type=ImportError)
    register()
    upstream = networks.S3PRLUpstream(ENTRY, path_or_url="embedded").eval()
    featurizer = networks.Featurizer(upstream)
    wavs, lengths = torch.randn(2, 16_000), torch.tensor([16_000, 8_000])
    with torch.no_grad():
        states, state_lengths = upstream(wavs, lengths)
        features, feature_lengths = featurizer(states, state_lengths)
    assert featurizer.downsample_rate == 320
    assert features.shape == (2, 50, upstream.hidden_sizes[0])
    assert feature_lengths.tolist() == [50, 25]
