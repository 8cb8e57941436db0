"""On the embedded teacher, in a few seconds: learned gates beat random ones, and these beat dropping the top layers."""

from __future__ import annotations

from typing import Any

import pytest

import slimvox
from slimvox.embedded import audio_files

STEPS = 40
SETTINGS = {
    "target.keep": 0.5,
    "data.min_seconds": 0.5,
    "data.max_seconds": 0.6,
    "data.seconds_per_batch": 1.2,
    "finish.learning_rate": 2e-3,
}
"""Short clips, and half of the parameters instead of 28 %: random gates then need a few steps only to recover."""
ARMS = {"learned": None, "random": "random", "top-layers": "top-layers"}


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, slimvox.PruneResult]:
    folder = tmp_path_factory.mktemp("arms")

    def prune(name: str, control: Any) -> slimvox.PruneResult:
        return slimvox.prune(
            "embedded",
            audio_files("train"),
            folder / name,
            held_out=audio_files("test")[:4],
            overrides=SETTINGS,
            max_steps=STEPS,
            control=control,
            device="cpu",
            precision="float32",
        )

    return {name: prune(name, control) for name, control in ARMS.items()}


def errors(arms: dict[str, slimvox.PruneResult]) -> dict[str, tuple[float, float]]:
    """Relative error on held-out speech after the cut, and after stage 2."""
    found = {}
    for name, result in arms.items():
        first, last = result.distance_after_prune, result.distance_after_finish
        assert first is not None and last is not None
        found[name] = first.relative_error, last.relative_error
    return found


def test_all_arms_have_the_same_size(arms: dict[str, slimvox.PruneResult]) -> None:
    for result in arms.values():
        assert 0.995 * 0.5 <= result.parameters / result.parameters_dense <= 0.5


def test_stage_2_brings_every_arm_nearer_to_the_teacher(arms: dict[str, slimvox.PruneResult]) -> None:
    for after_cut, at_the_end in errors(arms).values():
        assert at_the_end < 0.9 * after_cut


def test_learned_gates_beat_random_ones_and_these_beat_dropped_layers(
    arms: dict[str, slimvox.PruneResult],
) -> None:
    """Over five seeds: after the cut .21 to .25 (learned) and 1.02 to 1.76 (random); at the end .122 to .131 (learned),
    .197 to .240 (random) and .316 to .324 (top layers)."""
    found = errors(arms)
    learned, random, top = (found[name] for name in ("learned", "random", "top-layers"))
    assert learned[0] < 0.4 * random[0]
    assert learned[1] < 0.8 * random[1] and random[1] < 0.87 * top[1]
