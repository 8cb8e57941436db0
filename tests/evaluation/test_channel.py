"""A recording channel of a recording's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from slimvox.evaluation.channel import BANDS, EQUALISER_DB, LOUDNESS_DB, band_filter, through_channel
from slimvox.evaluation.examples import Recording
from slimvox.evaluation.feature_cache import FeatureCache
from slimvox.evaluation.upstreams import FilterBankUpstream
from slimvox.evaluation.waveforms import Excerpt, read_waveform

RATE = 16_000


@pytest.fixture
def speech() -> np.ndarray:
    """A second and a half of noise that comes and goes."""
    time = np.arange(24_000) / RATE
    noise = np.random.default_rng(1).standard_normal(len(time))
    return (0.1 * noise * (1 + np.sin(2 * np.pi * 3 * time))).astype(np.float32)


def spectrum(waveform: np.ndarray) -> np.ndarray:
    """Long-term power in decibels in 40 bands."""
    power = np.square(np.abs(np.fft.rfft(waveform)))
    return 10 * np.log10([part.mean() for part in np.array_split(power, 40)])


def test_a_seed_is_a_channel(speech: np.ndarray) -> None:
    np.testing.assert_array_equal(through_channel(speech, 7), through_channel(speech, 7))
    difference = spectrum(through_channel(speech, 7)) - spectrum(through_channel(speech, 8))
    assert difference.std() > 2


def test_length_type_and_loudness_are_kept(speech: np.ndarray) -> None:
    heard = through_channel(speech, 3)
    assert heard.shape == speech.shape and heard.dtype == np.float32
    change = 10 * np.log10(np.mean(heard**2) / np.mean(speech**2))
    assert abs(change) <= LOUDNESS_DB + 0.1


def test_nothing_moves_in_time() -> None:
    click = np.zeros(8000, np.float32)
    click[4000] = 1.0
    assert [int(np.abs(through_channel(click, seed)).argmax()) for seed in range(5)] == [4000] * 5


def test_the_filter_has_the_gains_that_were_asked_for() -> None:
    np.testing.assert_allclose(np.abs(np.fft.rfft(band_filter(np.full(BANDS, 6.0)))), 10**0.3, rtol=1e-6)
    low_pass = np.where(np.arange(BANDS) < BANDS // 2, 0.0, -EQUALISER_DB)
    response = 20 * np.log10(np.abs(np.fft.rfft(band_filter(low_pass), 1024)))
    assert response[20] == pytest.approx(0.0, abs=0.5)
    assert response[-20] == pytest.approx(-EQUALISER_DB, abs=0.5)


@pytest.mark.parametrize("samples", [0, 1, 100])
def test_short_and_silent_recordings(samples: int) -> None:
    heard = through_channel(np.zeros(samples, np.float32), 0)
    assert heard.shape == (samples,) and not heard.any()


def test_a_recording_is_read_through_its_channel_before_it_is_cut(tmp_path: Path, speech: np.ndarray) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, speech, RATE, subtype="FLOAT")
    clips = Recording.of_file("a", path).clips
    whole = read_waveform(Excerpt(recording=Recording(id="a", clips=clips, channel=5)))
    np.testing.assert_array_equal(whole, through_channel(speech, 5))
    part = read_waveform(Excerpt(recording=Recording(id="a", clips=clips, channel=5), max_seconds=0.5))
    assert any(np.array_equal(part, whole[first : first + 8000]) for first in range(len(whole) - 8000 + 1))


def test_the_cache_tells_channels_apart(tmp_path: Path, speech: np.ndarray) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, speech, RATE, subtype="FLOAT")
    clips = Recording.of_file("a", path).clips
    cache = FeatureCache(upstream=FilterBankUpstream(), directory=tmp_path / "cache")
    means = [
        cache.features(
            [Excerpt(recording=Recording(id="a", clips=clips, channel=channel))], task="sid", pooling="mean"
        ).get("a")
        for channel in (None, 1, 2)
    ]
    assert not means[0].allclose(means[1], atol=0.1) and not means[1].allclose(means[2], atol=0.1)
