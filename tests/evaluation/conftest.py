"""A small world of tones: three "phones" that differ in pitch, spoken by "voices" that differ in an overtone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from torch import Tensor

from slimvox.evaluation.feature_cache import FeatureCache
from slimvox.evaluation.upstreams import FilterBankUpstream, Upstream

RATE = 16_000
PITCHES = {"a": 400.0, "b": 1000.0, "c": 2200.0}

WriteTones = Callable[..., str]


def tones(symbols: str, *, voice: float = 0.0, seed: int = 0, seconds: float = 0.15) -> np.ndarray:
    """A tone per symbol with short gaps; a blank is silence; a voice adds a high overtone."""
    draw = np.random.default_rng(seed)
    parts = []
    for symbol in symbols:
        time = np.arange(int(RATE * seconds)) / RATE
        part = np.zeros(len(time))
        if symbol != " ":
            part = 0.3 * np.sin(2 * np.pi * PITCHES[symbol] * (1 + 0.02 * draw.standard_normal()) * time)
            if voice:
                part += 0.2 * np.sin(2 * np.pi * voice * time)
        parts += [part, np.zeros(int(RATE * 0.05))]
    wave = np.concatenate(parts)
    return (wave + 0.003 * draw.standard_normal(len(wave))).astype(np.float32)


@pytest.fixture
def write_tones(tmp_path: Path) -> WriteTones:
    """Write a file of tones below tmp_path/data and return its name."""
    folder = tmp_path / "data"
    folder.mkdir()

    def write(name: str, symbols: str, **options: float) -> str:
        soundfile.write(folder / f"{name}.wav", tones(symbols, **options), RATE)  # type: ignore[arg-type]
        return f"{name}.wav"

    return write


class BandUpstream(FilterBankUpstream):
    """The loudness of ten bands: so few dimensions that a few dozen clips are enough to learn from."""

    def __call__(self, waveforms: Tensor) -> Tensor:
        return super().__call__(waveforms)[..., :80].unflatten(-1, (10, 8)).mean(-1)


@pytest.fixture
def bands() -> Upstream:
    return BandUpstream(name="bands", width=10, fingerprint="bands")


@pytest.fixture
def make_cache(tmp_path: Path) -> Callable[..., FeatureCache]:
    def make(upstream: Upstream | None = None, **options: Any) -> FeatureCache:
        settings = {"directory": tmp_path / "cache", **options}
        return FeatureCache(upstream=upstream or FilterBankUpstream(), **settings)

    return make
