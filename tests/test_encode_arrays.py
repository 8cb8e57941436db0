"""`slimvox.encode`: whatever a recording is given as, and with whichever others, its states are those of it alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoModel

import models
import slimvox
from slimvox import SlimvoxError, SpeechEncoder
from slimvox.audio import read_audio

LENGTHS = (3000, 900, 3000, 2100, 64)


@pytest.fixture(scope="module", params=["base", "large"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.directory(tmp_path_factory.mktemp(request.param) / "wavlm", "wavlm", request.param)


@pytest.fixture(scope="module")
def encoder(folder: Path) -> SpeechEncoder:
    return slimvox.load(folder)


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.standard_normal(length).astype(np.float32) for length in LENGTHS]


def alone(encoder: SpeechEncoder, clip: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        return torch.stack(encoder(torch.from_numpy(clip)[None]).hidden_states, 1)[0]


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_batches_change_nothing(
    encoder: SpeechEncoder, clips: list[np.ndarray], batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    prepared = encoder.prepared
    monkeypatch.setattr(encoder, "prepared", lambda x, mask=None: sizes.append(len(x)) or prepared(x, mask))
    found = slimvox.encode(clips, encoder, batch_size=batch_size)
    for states, clip in zip(found, clips, strict=True):
        assert torch.allclose(states, alone(encoder, clip), atol=2e-5)
    group = encoder.anatomy.conv_norm == "group"
    expected = {1: 5, 2: 4 if group else 3, 8: 4 if group else 1}[batch_size]
    assert len(sizes) - len(clips) == expected and max(sizes) <= batch_size


def test_every_kind_of_recording(
    encoder: SpeechEncoder, folder: Path, clips: list[np.ndarray], tmp_path: Path
) -> None:
    clip = clips[0] / 10
    path = tmp_path / "a.wav"
    soundfile.write(path, clip, 16_000, subtype="FLOAT")
    expected = slimvox.encode(clip, encoder)
    assert expected.shape == (4, encoder.anatomy.frames(len(clip)), 32)
    row = {"array": clip.astype(np.float64), "sampling_rate": 16_000}
    for recording in (torch.from_numpy(clip), path, str(path), row):
        assert torch.equal(slimvox.encode(recording, folder), expected)
    several = slimvox.encode([path, clip, row], folder, to_numpy=True)
    assert all(isinstance(each, np.ndarray) and np.allclose(each, expected, atol=1e-5) for each in several)
    two = slimvox.encode(np.stack([clip, clip]), encoder, layers="last")
    assert len(two) == 2 and two[0].shape == expected.shape[1:]
    last = encoder(torch.from_numpy(clip)[None]).last_hidden_state[0]
    assert torch.allclose(two[1], last, atol=1e-5)
    assert torch.equal(slimvox.encode(clip, encoder, layers=(0, 2)), expected[[0, 2]])
    assert slimvox.encode([], encoder) == []


class Decoder:
    """As the audio of a data set is since `datasets` 4: an `AudioDecoder` of torchcodec."""

    def __init__(self, channels: np.ndarray, rate: int) -> None:
        self.samples = SimpleNamespace(data=torch.from_numpy(channels), sample_rate=rate)

    def get_all_samples(self) -> SimpleNamespace:
        return self.samples

    def __getitem__(self, key: str) -> Any:
        return {"array": self.samples.data.mean(0).numpy(), "sampling_rate": self.samples.sample_rate}[key]


def test_decoders_of_data_sets(encoder: SpeechEncoder, clips: list[np.ndarray]) -> None:
    stereo = Decoder(np.stack([2 * clips[0], np.zeros_like(clips[0])]), 8000)
    expected = slimvox.encode(clips[0], encoder, sampling_rate=8000)
    assert torch.equal(slimvox.encode(stereo, encoder), expected)
    assert torch.allclose(slimvox.encode([stereo, clips[1]], encoder)[0], expected, atol=2e-5)


def test_waveforms_are_resampled(encoder: SpeechEncoder, tmp_path: Path) -> None:
    tone = np.sin(np.arange(2400) / 20).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", tone, 8000, subtype="FLOAT")
    expected = slimvox.encode(read_audio(tmp_path / "a.wav"), encoder)
    assert torch.allclose(slimvox.encode(tone, encoder, sampling_rate=8000), expected, atol=1e-3)
    assert torch.allclose(
        slimvox.encode({"array": tone, "sampling_rate": 8000}, encoder), expected, atol=1e-3
    )


def test_long_audio_comes_as_from_files(encoder: SpeechEncoder, tmp_path: Path) -> None:
    clip = np.random.default_rng(1).standard_normal(9000).astype(np.float32) / 10
    soundfile.write(tmp_path / "a.wav", clip, 16_000, subtype="FLOAT")
    options: dict[str, Any] = {"chunk_seconds": 0.2, "overlap_seconds": 0.05}
    found = slimvox.encode([clip, clip[:5000]], encoder, **options)[0]
    slimvox.encode_files(encoder, tmp_path / "a.wav", tmp_path / "out", **options)
    with np.load(tmp_path / "out" / "a.npz") as file:
        expected = np.stack([file[f"layer_{layer:02d}"] for layer in range(4)])
    assert found.shape == expected.shape and np.allclose(found, expected, atol=2e-5)


def test_a_model_of_transformers(
    folder: Path, encoder: SpeechEncoder, clips: list[np.ndarray], tmp_path: Path
) -> None:
    dense = AutoModel.from_pretrained(folder).train()
    expected = alone(encoder, clips[0])
    assert torch.allclose(slimvox.encode(clips[0], dense), expected, atol=1e-5)
    encoder.save_pretrained(tmp_path / "ours")
    ours = AutoModel.from_pretrained(tmp_path / "ours").train()
    assert torch.allclose(slimvox.encode(clips[0], ours), expected, atol=1e-5)
    assert ours.training and dense.training
    comparison = slimvox.compare(ours, _speech(tmp_path), teacher=dense)
    assert comparison.sources[0].distances.mean.relative_error < 1e-4


def _speech(folder: Path) -> Path:
    noise = np.random.default_rng(2).standard_normal(16_000) / 10
    soundfile.write(folder / "noise.wav", noise, 16_000)
    return folder / "noise.wav"


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros(5, np.float32), "recording 0 must have at least"),
        (np.zeros((1, 2, 3000), np.float32), "recording 0 must be one waveform"),
        (np.zeros(3000, np.int16), "floating-point numbers, but has"),
        ([np.full(3000, np.nan, np.float32)], "recording 0 holds samples that are NaN"),
        ({"array": np.zeros(3000)}, "`sampling_rate`"),
        (
            {"array": np.zeros(3000), "sampling_rate": 0},
            "recording 0 must be a whole number above 0, but is 0",
        ),
        ({"array": np.zeros(3000), "sampling_rate": None}, "but is None instead"),
        (None, "`audio` must be a recording or a sequence of recordings, but is of type NoneType"),
        (np.array(1.0), "`audio` must be a recording"),
        ([None], "recording 0 must be one waveform"),
        ([[np.zeros(3), np.zeros(2)]], "recording 0 must be one waveform"),
        (Path(__file__).parent, "encode_files"),
    ],
)
def test_what_is_not_a_recording(encoder: SpeechEncoder, audio: Any, message: str) -> None:
    with pytest.raises(SlimvoxError, match=message):
        slimvox.encode(audio, encoder)


def test_what_is_not_a_model(clips: list[np.ndarray]) -> None:
    with pytest.raises(SlimvoxError, match="`model` must be"):
        slimvox.encode(clips[0], 3)  # type: ignore[arg-type]
