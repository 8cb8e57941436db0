"""Whisper's encoder computes what `transformers` computes, and what is our own about it: short and padded inputs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, WhisperForConditionalGeneration

import slimvox
import whisper_models
from drawn import uneven_masks
from slimvox.checkpoint.transformers_config import anatomy_from_config, transformers_config
from slimvox.costs import macs, parameters
from slimvox.encoder import use_backend
from slimvox.pruning.surgery import slice_encoder
from slimvox.structures import Address
from slimvox.structures.anatomy import EncoderAnatomy
from tiny_runs import make_run, make_speech, make_teacher
from whisper_models import SAMPLES


def speech(*lengths: int) -> tuple[Tensor, Tensor]:
    """Noise of growing loudness, zero-padded, and its mask."""
    longest = max(lengths)
    waveforms = 0.1 * torch.randn(len(lengths), longest, generator=torch.Generator().manual_seed(1))
    waveforms = waveforms * torch.linspace(0.001, 1, longest)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    return waveforms * mask, mask


def theirs(reference: WhisperForConditionalGeneration, waveforms: Tensor) -> Any:
    """Output of the encoder of `transformers` for waveforms, padded to its window."""
    extractor = whisper_models.feature_extractor(feature_size=reference.config.num_mel_bins)
    features = extractor([*waveforms.numpy()], sampling_rate=16_000, return_tensors="pt").input_features
    with torch.no_grad():
        return reference.model.encoder(features, output_hidden_states=True)


@pytest.mark.parametrize("bins", [80, 128])
@pytest.mark.parametrize("samples", [400, 9_999, SAMPLES])
def test_every_state_of_the_padded_window_is_that_of_transformers(
    samples: int, bins: int, tmp_path: Path
) -> None:
    reference = whisper_models.model(num_mel_bins=bins)
    encoder = slimvox.load(whisper_models.directory(tmp_path, num_mel_bins=bins))
    waveforms, _ = speech(samples, samples)
    with torch.no_grad():
        ours = encoder(encoder.pad_to_window(waveforms))
    expected = theirs(reference, waveforms)
    assert len(ours.hidden_states) == len(expected.hidden_states) == 4
    for a, b in zip(ours.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(ours.last_hidden_state, expected.last_hidden_state, atol=2e-6, rtol=1e-5)


def test_the_spectrogram_is_that_of_the_feature_extractor() -> None:
    encoder = slimvox.SpeechEncoder(anatomy())
    waveforms, _ = speech(SAMPLES, SAMPLES)
    extractor = whisper_models.feature_extractor()
    expected = extractor([*waveforms.numpy()], sampling_rate=16_000, return_tensors="pt").input_features
    found = encoder.feature_extractor.log_mel(waveforms)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    half = encoder.bfloat16().feature_extractor.log_mel(waveforms)
    assert torch.equal(half, found)
    assert encoder.feature_extractor.log_mel(waveforms.bfloat16()).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoder.feature_extractor.log_mel(waveforms), found)


def test_a_padded_clip_with_a_mask_is_the_clip_alone(tmp_path: Path) -> None:
    encoder = slimvox.load(whisper_models.directory(tmp_path))
    lengths = (SAMPLES - 1, 12_345, 12_480, 400)
    waveforms, mask = speech(*lengths)
    garbage = torch.where(mask, waveforms, 7.0)
    with torch.no_grad():
        padded = encoder(garbage, mask)
        for clip, samples in enumerate(lengths):
            alone = encoder(waveforms[clip : clip + 1, :samples])
            frames = encoder.anatomy.frames(samples)
            assert padded.frame_mask[clip].sum() == alone.frame_mask.sum() == frames
            for a, b in zip(padded.hidden_states, alone.hidden_states, strict=True):
                torch.testing.assert_close(a[clip, :frames], b[0], atol=5e-6, rtol=1e-5)


def test_a_short_clip_has_its_own_frames_only(tmp_path: Path) -> None:
    encoder = slimvox.load(whisper_models.directory(tmp_path))
    for samples, frames in ((400, 1), (479, 1), (480, 2), (720, 2), (16_000, 50)):
        assert encoder(torch.randn(1, samples)).last_hidden_state.shape == (1, frames, 32)
        assert encoder.anatomy.frames(samples) == frames
    assert encoder.pad_to_window(torch.randn(2, 400)).shape == (2, SAMPLES)


def test_what_has_no_positions_is_one_sentence(tmp_path: Path) -> None:
    encoder = slimvox.load(whisper_models.directory(tmp_path))
    with pytest.raises(ValueError, match=r"at most 16000 samples \(1 s, .*but holds 16001 instead; cut it"):
        encoder(torch.zeros(1, SAMPLES + 1))
    with pytest.raises(ValueError, match="at least 400 samples"):
        encoder(torch.zeros(1, 399))


def test_costs_are_those_of_the_modules(tmp_path: Path) -> None:
    reference = whisper_models.model(attn_implementation="eager")
    encoder = slimvox.load(whisper_models.directory(tmp_path))
    positions = encoder.pos_conv_embed.weight.numel()
    counted = parameters(encoder.anatomy)
    assert counted == encoder.parameter_count
    assert counted + positions == sum(each.numel() for each in reference.model.encoder.parameters())
    features = torch.zeros(1, 80, 2 * whisper_models.POSITIONS)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        reference.model.encoder(features)
    filters = 80 * 201 * features.shape[-1]  # which the feature extractor of `transformers` multiplies by
    assert macs(encoder.anatomy, 1.0) == counter.get_total_flops() / 2 + filters


def anatomy(**config: Any) -> EncoderAnatomy:
    """That of Whisper base, or of changes to the tiny configuration."""
    data = whisper_models.config(**config).to_dict()
    return anatomy_from_config(data, "test", normalize_waveform=False)


def test_sizes_of_whisper_base() -> None:
    base = anatomy(
        d_model=512,
        encoder_layers=6,
        encoder_attention_heads=8,
        encoder_ffn_dim=2048,
        max_source_positions=1500,
    )
    assert parameters(base) == 20_590_592 - 1500 * 512
    assert base.most_samples == 30 * 16_000 and base.frames(30 * 16_000) == 1500
    assert EncoderAnatomy.from_dict(json.loads(json.dumps(base.to_dict()))) == base
    assert anatomy_from_config(transformers_config(base).to_dict(), "test", normalize_waveform=False) == base


def pruned(path: Path) -> slimvox.SpeechEncoder:
    """The tiny encoder with fewer channels, heads of unequal width and a block gone."""
    encoder = slimvox.load(whisper_models.directory(path))
    masks = uneven_masks(encoder.anatomy)
    masks[Address("conv", 0)] = (torch.arange(32) % 3 > 0).float()
    masks[Address("attention", 1)] = torch.zeros(1)
    return slice_encoder(encoder, masks).encoder


def test_pruned_encoders_are_saved_and_loaded(tmp_path: Path) -> None:
    encoder = pruned(tmp_path / "dense")
    assert encoder.anatomy.convolutions[0].channels == 21
    positions = slimvox.load(tmp_path / "dense").pos_conv_embed.weight
    assert torch.equal(encoder.pos_conv_embed.weight, positions)
    encoder.save_pretrained(tmp_path / "small")
    waveforms, mask = speech(SAMPLES, 5_000)
    with torch.no_grad():
        expected = encoder(waveforms, mask)
        again = slimvox.load(tmp_path / "small")(waveforms, mask)
        model = AutoModel.from_pretrained(tmp_path / "small", trust_remote_code=True)
        travelled = model(waveforms, mask, output_hidden_states=True)
    for a, b, c in zip(expected.hidden_states, again.hidden_states, travelled.hidden_states, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(c, a)


def test_fast_ways_compute_what_the_reference_computes(tmp_path: Path) -> None:
    encoder = pruned(tmp_path)
    waveforms, mask = speech(SAMPLES, 5_000)
    with torch.inference_mode():
        fast = encoder(waveforms, mask).last_hidden_state
        with use_backend("reference"):
            reference = encoder(waveforms, mask).last_hidden_state
    torch.testing.assert_close(fast[mask[:, ::320]], reference[mask[:, ::320]], atol=1e-5, rtol=1e-5)


def test_training_reaches_every_weight(tmp_path: Path) -> None:
    encoder = pruned(tmp_path).train()
    encoder(torch.randn(2, 8_000)).last_hidden_state.sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())
    assert "pos_conv_embed.weight" in encoder.state_dict()


def test_other_spectrograms_are_refused(tmp_path: Path) -> None:
    whisper_models.directory(tmp_path)
    whisper_models.feature_extractor(hop_length=80).save_pretrained(tmp_path)
    with pytest.raises(slimvox.SlimvoxError, match=r"`hop_length` must be 160, .*but is 80 instead"):
        slimvox.load(tmp_path)


def test_an_encoder_alone_is_read_as_well(tmp_path: Path) -> None:
    reference = whisper_models.model()
    reference.model.encoder.save_pretrained(tmp_path)
    encoder = slimvox.load(tmp_path)
    waveforms, _ = speech(SAMPLES)
    torch.testing.assert_close(
        encoder(waveforms).last_hidden_state.detach(),
        theirs(reference, waveforms).last_hidden_state,
        atol=2e-6,
        rtol=1e-5,
    )


def test_long_recordings_are_encoded_in_chunks(tmp_path: Path) -> None:
    encoder = slimvox.load(whisper_models.directory(tmp_path))
    long = np.random.default_rng(0).normal(size=5 * SAMPLES // 2).astype(np.float32)
    states = slimvox.encode(long, encoder, layers="last", chunk_seconds=0.8, overlap_seconds=0.1)
    assert states.shape == (encoder.anatomy.frames(len(long)), 32) and bool(states.isfinite().all())


@pytest.mark.parametrize("overlap_seconds", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("over", [-321, 0, 1, 320, 1_599, 1_600, 1_601, 6_399, 6_400, 16_001])
def test_no_chunk_is_longer_than_the_window(tmp_path: Path, over: int, overlap_seconds: float) -> None:
    encoder = slimvox.load(whisper_models.directory(tmp_path))
    clip = np.random.default_rng(0).normal(size=SAMPLES + over).astype(np.float32)
    states = slimvox.encode(clip, encoder, layers="last", chunk_seconds=30.0, overlap_seconds=overlap_seconds)
    assert states.shape == (encoder.anatomy.frames(len(clip)), 32)
    if over <= 0:  # one chunk
        whole = encoder(torch.from_numpy(clip)[None]).hidden_states[-1][0]
        torch.testing.assert_close(torch.as_tensor(states), whole.detach(), atol=1e-5, rtol=1e-4)


def test_an_overlap_for_which_the_window_is_too_short_is_an_error(tmp_path: Path) -> None:
    encoder = slimvox.load(whisper_models.directory(tmp_path))
    with pytest.raises(
        slimvox.SlimvoxError, match="`overlap_seconds` must be less than half the model's longest input, 1 s"
    ):
        slimvox.encode(np.zeros(SAMPLES, dtype=np.float32), encoder, overlap_seconds=0.5)


@pytest.mark.parametrize(("family", "recipe"), [("whisper", "whisper"), ("wavlm", "default")])
def test_a_family_has_a_recipe_of_its_own(tmp_path: Path, family: str, recipe: str) -> None:
    if family == "whisper":
        teacher = whisper_models.directory(tmp_path / "dense")
    else:
        make_teacher(teacher := tmp_path / "dense")
    settings: dict[str, Any] = {
        f"data.{name}": 1.0 for name in ("max_seconds", "pad_to_seconds", "seconds_per_batch")
    }
    settings |= {"data.min_seconds": 0.5, "target.seconds": 1.0}
    speech = make_speech(tmp_path / "speech")
    slimvox.prune(teacher, speech, tmp_path / "out", overrides=settings, max_steps=3, device="cpu")
    settings = json.loads((tmp_path / "out" / "run" / "settings.json").read_text())
    assert settings["fingerprint"]["recipe"]["name"] == recipe


@pytest.mark.parametrize("field", ["max_seconds", "pad_to_seconds"])
def test_clips_longer_than_the_window_are_an_error_before_the_run(tmp_path: Path, field: str) -> None:
    teacher, speech = whisper_models.directory(tmp_path / "dense"), make_speech(tmp_path / "speech")
    with pytest.raises(
        slimvox.SlimvoxError,
        match=rf"`data\.{field}` must be at most 1, the longest input of .*, but is 1\.1",
    ):
        make_run(tmp_path / "out", teacher, speech, settings={f"data.{field}": 1.1})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("seconds", [0.001, 1.5])
def test_a_cost_is_counted_for_a_clip_that_the_encoder_takes(tmp_path: Path, seconds: float) -> None:
    teacher, speech = whisper_models.directory(tmp_path / "dense"), make_speech(tmp_path / "speech")
    settings = {"target.kind": "macs", "target.seconds": seconds}
    with pytest.raises(
        slimvox.SlimvoxError, match=r"`target\.seconds` must be .* at least 0\.025 s.* most 1 s"
    ):
        make_run(tmp_path / "out", teacher, speech, settings=settings)
    assert not (tmp_path / "out").exists()


def test_anatomies_that_contradict_themselves_are_refused() -> None:
    dense = anatomy()
    assert dense.projection_convolution is not None
    with pytest.raises(ValueError, match="must be 0 or empty beside a `position_table`"):
        replace(dense, position_kernel=3)
    with pytest.raises(ValueError, match="`projection_convolution` must have 32 channels"):
        replace(dense, projection_convolution=replace(dense.projection_convolution, channels=31))
