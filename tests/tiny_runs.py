"""Whole runs in seconds: a tiny random teacher, a little noise, a few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile

import models
import slimvox

ENCODER = {
    "hidden_size": 48,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "conv_dim": (12, 16, 16, 16, 16),
    "conv_kernel": (10, 5, 4, 4, 4),
    "conv_stride": (5, 4, 4, 2, 2),
}
SETTINGS = {
    "prune.steps": 6,
    "finish.steps": 4,
    # Longer than the stages, so that the rates stay low.
    "prune.warmup_steps": 10,
    "finish.warmup_steps": 10,
    "gates.ramp_steps": 3,
    "gates.learning_rate": 0.5,
    "data.seconds_per_batch": 3.0,
    "data.min_seconds": 0.5,
    "data.max_seconds": 1.0,
}


def make_teacher(path: Path) -> Path:
    """A random WavLM of 50 frames a second."""
    return models.directory(path, "wavlm", **ENCODER)


def make_speech(folder: Path) -> Path:
    """A folder of short noises."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for number in range(12):
        noise = random.standard_normal(int(16_000 * random.uniform(0.6, 1.5)))
        soundfile.write(folder / f"{number:02}.wav", 0.1 * noise / np.abs(noise).max(), 16_000)
    return folder


def make_run(
    out: Path, teacher: Path, speech: Path, *, settings: dict[str, Any] | None = None, **arguments: Any
) -> slimvox.PruneResult:
    """Prune; `settings` are fields of the recipe."""
    overrides = {**SETTINGS, **(settings or {})}
    where = {"device": "cpu", "precision": "float32"}
    return slimvox.prune(teacher, speech, out, recipe="quick", overrides=overrides, **{**where, **arguments})
