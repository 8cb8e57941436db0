"""A simulated acoustic channel for each recording: an equaliser and a noise floor, both drawn from a seed.

Where each speaker was recorded in one session, microphone, room and noise floor distinguish the speakers better than
their voices do. Giving every recording another channel prevents that: the long-term spectrum no longer identifies the
speaker.
"""

from __future__ import annotations

import numpy as np

from slimvox.audio.decode import FloatArray
from slimvox.structures.anatomy import SAMPLE_RATE_HZ

BANDS = 32
"""Number of bands, evenly spaced on the mel scale; too many for a linear map to remove without other losses."""
EQUALISER_DB = 10.0
"""Maximum gain of a band; gains are drawn uniformly from minus to plus this."""
NOISE_DB = 10.0
"""Maximum gain of a band of the noise, drawn in the same way."""
SIGNAL_TO_NOISE_DB = (20.0, 40.0)
"""Range of the signal-to-noise ratio of a whole recording, drawn uniformly."""
LOUDNESS_DB = 6.0
"""Maximum change of the loudness of a recording, up or down."""
TAPS = 513
"""Length of the equaliser: 32 ms."""


def through_channel(waveform: FloatArray, seed: int) -> FloatArray:
    """Equalise a waveform, add coloured noise and change its loudness.

    The equaliser has linear phase and no delay, so that nothing moves in time.

    Args:
        waveform: (samples,) at 16 kHz.
        seed: seed of all random values; one seed is one channel.

    Returns:
        (samples,), of the same length; silence stays silent.
    """
    draw = np.random.default_rng(seed)
    equaliser = band_filter(draw.uniform(-EQUALISER_DB, EQUALISER_DB, BANDS))
    colour = band_filter(draw.uniform(-NOISE_DB, NOISE_DB, BANDS))
    signal_to_noise = draw.uniform(*SIGNAL_TO_NOISE_DB)
    loudness = draw.uniform(-LOUDNESS_DB, LOUDNESS_DB)
    if not len(waveform):
        return waveform
    heard = _filtered(waveform.astype(np.float64), equaliser)
    noise = _filtered(draw.standard_normal(len(waveform)), colour)
    level = _power(heard) / max(_power(noise), 1e-20) * 10 ** (-signal_to_noise / 10)
    mixed = heard + noise * np.sqrt(level)
    # As loud as it was, but for the drawn change.
    gain = np.sqrt(_power(waveform) / max(_power(mixed), 1e-20)) * 10 ** (loudness / 20)
    result: FloatArray = (mixed * gain).astype(np.float32)
    return result


def band_filter(gains_db: np.ndarray) -> np.ndarray:
    """A symmetric filter (TAPS,) with given gains at evenly spaced mel frequencies from 0 to 8 kHz."""
    frequencies = np.fft.rfftfreq(TAPS - 1, 1 / SAMPLE_RATE_HZ)
    places = np.linspace(0, _mel(np.array(SAMPLE_RATE_HZ / 2)), len(gains_db))
    response = 10 ** (np.interp(_mel(frequencies), places, gains_db) / 20)
    impulse = np.fft.fftshift(np.fft.irfft(response))
    taps: np.ndarray = np.append(impulse, impulse[0]) * np.hanning(TAPS)
    return taps


def _filtered(x: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """Convolve and cut to the same length and place."""
    size = 1 << (len(x) + len(taps) - 2).bit_length()
    full = np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(taps, size), size)
    begin = len(taps) // 2
    part: np.ndarray = full[begin : begin + len(x)]
    return part


def _power(x: np.ndarray) -> float:
    return float(np.mean(np.square(x, dtype=np.float64)))


def _mel(hertz: np.ndarray) -> np.ndarray:
    mel: np.ndarray = 2595 * np.log10(1 + hertz / 700)
    return mel
