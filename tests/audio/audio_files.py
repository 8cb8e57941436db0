"""Audio files for the tests, written with soundfile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

FORMATS = {
    ".wav": {},
    ".flac": {},
    ".ogg": {},
    ".opus": {"format": "OGG", "subtype": "OPUS"},
    ".mp3": {},
    ".aiff": {},
    ".au": {},
    ".w64": {},
}


def tone(seconds: float, rate_hz: int = 16_000, *, pitch_hz: float = 440.0, channels: int = 1) -> np.ndarray:
    """Sine of half scale (samples,) or (samples, channels), the second channel at half its level."""
    wave = 0.5 * np.sin(2 * np.pi * pitch_hz * np.arange(round(seconds * rate_hz)) / rate_hz)
    if channels == 1:
        return wave
    return np.stack([wave / (channel + 1) for channel in range(channels)], axis=1)


def write(path: Path, wave: np.ndarray, rate_hz: int = 16_000, **options: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate_hz, **{**FORMATS[path.suffix], **options})
    return path


def write_tones(folder: Path, seconds: list[float]) -> list[Path]:
    """One tone a file, each of its own pitch."""
    return [
        write(folder / f"{number:03}.wav", tone(length, pitch_hz=200.0 + 20 * number))
        for number, length in enumerate(seconds)
    ]
