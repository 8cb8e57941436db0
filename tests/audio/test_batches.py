"""The laws of the batch plan."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimvox.audio import BatchPlan
from slimvox.util.errors import SlimvoxError

RATE = 16_000
MIN, MAX = 1.0, 15.6

corpora = st.lists(st.floats(MIN, 4 * MAX), min_size=1, max_size=60)
budgets = st.floats(MIN, 100.0)
seeds = st.integers(0, 2**40)


def plan_of(seconds: Any, budget: float = 60.0, seed: int = 0, **settings: Any) -> BatchPlan:
    return BatchPlan(
        seconds,
        **{"seconds_per_batch": budget, "min_seconds": MIN, "max_seconds": MAX, "seed": seed, **settings},
    )


@given(corpora, budgets, seeds, st.integers(0, 3))
def test_an_epoch_takes_every_clip_within_its_bounds(
    seconds: list[float], budget: float, seed: int, epoch: int
) -> None:
    plan = plan_of(seconds, budget, seed)
    first = epoch * plan.batches_per_epoch
    batches = [plan.batch(first + place) for place in range(plan.batches_per_epoch)]
    assert {crop.clip for batch in batches for crop in batch} == set(range(len(seconds)))
    for batch in batches:
        (samples,) = {crop.samples for crop in batch}
        assert MIN * RATE - 1 <= samples <= min(MAX, budget) * RATE + 1
        assert len(batch) * samples <= budget * RATE + 1
        for crop in batch:
            assert crop.start >= 0
            assert crop.start + samples <= seconds[crop.clip] * RATE + 1


@given(corpora, budgets, seeds, st.lists(st.integers(0, 500), min_size=1, max_size=5))
def test_a_batch_depends_on_its_number_alone(
    seconds: list[float], budget: float, seed: int, indices: list[int]
) -> None:
    used = plan_of(seconds, budget, seed)
    for index in indices:
        assert used.batch(index) == plan_of(seconds, budget, seed).batch(index)


@given(corpora, seeds, st.integers(0, 20), st.integers(1, 9))
def test_replacements_are_long_enough(seconds: list[float], seed: int, index: int, attempt: int) -> None:
    plan = plan_of(seconds, seed=seed)
    for slot, crop in enumerate(plan.batch(index)):
        other = plan.replacement(index, slot, attempt, crop.samples)
        assert other == plan.replacement(index, slot, attempt, crop.samples)
        assert other.samples == crop.samples
        assert other.start >= 0
        assert other.start + other.samples <= seconds[other.clip] * RATE + 1
    substitute = plan.substitute(index, attempt)
    assert substitute // plan.batches_per_epoch == index // plan.batches_per_epoch


def test_parts_of_a_long_clip_do_not_overlap() -> None:
    plan = plan_of([10 * MAX + 3.0], 30.0)
    crops = sorted(
        (crop for place in range(plan.batches_per_epoch) for crop in plan.batch(place)),
        key=lambda crop: crop.start,
    )
    assert len(crops) == 10
    for before, after in itertools.pairwise(crops):
        assert before.start + before.samples <= after.start


def test_epochs_and_seeds_differ() -> None:
    seconds = np.random.default_rng(0).uniform(MIN, 30.0, 200)
    plan = plan_of(seconds)
    epochs = [[plan.batch(epoch * plan.batches_per_epoch + n) for n in range(5)] for epoch in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert plan_of(seconds, seed=1).batch(0) != plan.batch(0)


def seconds_per_epoch(plan: BatchPlan) -> float:
    batches = [plan.batch(place) for place in range(plan.batches_per_epoch)]
    return sum(len(batch) * batch[0].samples for batch in batches) / RATE


@pytest.mark.parametrize(
    ("seconds", "budget"),
    [
        # Read books: most utterances near 15 s, the others anywhere below.
        (np.concatenate([np.full(300, 14.5), np.linspace(2.0, 17.0, 400)]), 640.0),
        # Conversation: short turns and a long tail.
        (np.clip(np.random.default_rng(0).lognormal(1.3, 0.6, 3_000), 1.0, 40.0), 120.0),
        # A handful of clips of all lengths.
        (np.geomspace(2.0, 15.0, 20), 60.0),
        (np.random.default_rng(1).uniform(2.0, 9.0, 60), 30.0),
        # A few recordings of an hour.
        (np.random.default_rng(2).uniform(3_000.0, 4_000.0, 10), 640.0),
    ],
)
def test_cutting_to_the_shortest_loses_little(seconds: np.ndarray, budget: float) -> None:
    plan = plan_of(seconds, budget)
    usable = np.where(seconds >= 2 * MAX, seconds, np.minimum(seconds, MAX)).sum()
    assert seconds_per_epoch(plan) >= 0.85 * usable


def test_with_enough_audio_batches_are_full() -> None:
    plan = plan_of(np.random.default_rng(0).uniform(MIN, 20.0, 5_000), 200.0)
    assert seconds_per_epoch(plan) / plan.batches_per_epoch >= 0.9 * 200.0


def test_one_short_file_is_enough() -> None:
    plan = plan_of([2.0], 640.0)
    assert [plan.batch(index)[0].samples for index in range(3)] == [2 * RATE] * 3


def test_a_million_clips() -> None:
    plan = plan_of(np.random.default_rng(0).uniform(MIN, 20.0, 1_000_000), 640.0)
    assert 0.9 * 640.0 * RATE <= sum(crop.samples for crop in plan.batch(10**7)) <= 640.0 * RATE


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clip_seconds": []}, "at least one clip"),
        ({"clip_seconds": [0.5, 2.0]}, "the shortest is 0.5"),
        ({"clip_seconds": [np.nan]}, "`clip_seconds`"),
        ({"min_seconds": 0.0}, "`min_seconds` must be positive"),
        ({"max_seconds": 0.5}, "`max_seconds` must be at least"),
        ({"seconds_per_batch": 0.5}, "`seconds_per_batch` must be at least"),
        ({"seed": -1, "max_seconds": 0.5}, "`seed` must be.*`max_seconds` must be"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    settings = {"clip_seconds": [2.0], **settings}
    with pytest.raises(SlimvoxError, match=message):
        plan_of(settings.pop("clip_seconds"), **settings)
