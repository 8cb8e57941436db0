"""A tiny teacher and a little audio for whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from measures import TABLE
from slimvox.measure.latency import prepare
from tiny_runs import make_teacher


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random WavLM of 50 frames a second, small enough for a step in milliseconds."""
    return make_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of short noises of different lengths and colours."""
    folder = tmp_path_factory.mktemp("speech")
    random = np.random.default_rng(0)
    for number in range(12):
        samples = random.standard_normal(int(16_000 * random.uniform(0.6, 1.5)))
        samples = np.convolve(samples, random.standard_normal(4 + number), "same")
        soundfile.write(folder / f"{number:02}.wav", 0.1 * samples / np.abs(samples).max(), 16_000)
    return folder


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Any:
    """In place of measuring: a machine whose table is known."""
    monkeypatch.setattr(prepare, "kept_table", lambda *_: TABLE)
    return TABLE
