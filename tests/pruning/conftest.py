"""A tiny teacher and a little audio for whole runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

import models

TINY_RUN = {
    "hidden_size": 48,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "conv_dim": (12, 16, 16, 16, 16),
    "conv_kernel": (10, 5, 4, 4, 4),
    "conv_stride": (5, 4, 4, 2, 2),
}


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random WavLM of 50 frames a second, small enough for a step in milliseconds."""
    return models.directory(tmp_path_factory.mktemp("teacher"), "wavlm", **TINY_RUN)


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
