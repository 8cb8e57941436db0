"""Confidence intervals: they cover the truth at about their level, and pairing narrows those of differences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimvox.evaluation.examples import Trial
from slimvox.evaluation.feature_cache import FeatureCache
from slimvox.evaluation.intervals import Estimate, estimate, score_of, weighted
from slimvox.evaluation.outcomes import Outcomes, mean_of_folds
from slimvox.evaluation.tasks import SUPERB, task
from slimvox.evaluation.tasks.asv import _counts, _error_rate
from slimvox.util.errors import SlimvoxError
from tone_tasks import tone_protocol, tone_set

SPEAKERS, CLIPS, SEEDS, REPEATS = 20, 6, 5, 150


def outcomes(draw: np.random.Generator, truth: float, shared: np.ndarray | None = None) -> Outcomes:
    """Clips of speakers who differ, scored by heads that differ; `shared` is how hard the clips are for any model."""
    base = clip_effects(draw) if shared is None else shared
    values = truth + base + draw.normal(0, 0.03, (SEEDS, 1)) + draw.normal(0, 0.1, (SEEDS, len(base)))
    return Outcomes(
        sources=[(f"speaker {number // CLIPS}",) for number in range(len(base))],
        sizes=[1.0] * len(base),
        values=values.tolist(),
        factor=1.0,
    )


def clip_effects(draw: np.random.Generator) -> np.ndarray:
    return np.repeat(draw.normal(0, 0.15, SPEAKERS), CLIPS) + draw.normal(0, 0.3, SPEAKERS * CLIPS)


def mean(of: Outcomes) -> float:
    return float(np.mean(of.scores))


def test_intervals_cover_the_truth_at_about_their_level() -> None:
    covered = []
    for repeat in range(REPEATS):
        of = outcomes(np.random.default_rng(repeat), 0.6)
        found = estimate(score_of("ks", of, mean(of)))
        covered.append(abs(found.value - 0.6) <= found.half_width)
    assert 0.90 <= np.mean(covered) <= 0.99


def test_pairing_covers_the_difference_and_is_narrower() -> None:
    covered, widths = [], []
    for repeat in range(REPEATS):
        draw = np.random.default_rng(repeat)
        shared = clip_effects(draw)
        first, second = outcomes(draw, 0.6, shared), outcomes(draw, 0.55, shared)
        paired = estimate(score_of("ks", first, mean(first) - mean(second), other=second))
        alone = [estimate(score_of("ks", each, mean(each))).half_width for each in (first, second)]
        covered.append(abs(paired.value - 0.05) <= paired.half_width)
        widths.append(paired.half_width / np.hypot(*alone))
    assert 0.88 <= np.mean(covered) <= 0.99
    assert np.mean(widths) < 0.6


def test_an_encoder_against_itself_differs_by_exactly_nothing() -> None:
    of = outcomes(np.random.default_rng(0), 0.6)
    assert estimate(score_of("ks", of, 0.0, other=of)) == Estimate(value=0.0, error=0.0, degrees=np.inf)


def test_clips_of_one_speaker_are_resampled_together() -> None:
    of = outcomes(np.random.default_rng(0), 0.6)
    alone = Outcomes(
        sources=[(str(number),) for number in range(len(of.sizes))],
        sizes=of.sizes,
        values=of.values,
        factor=of.factor,
    )
    assert estimate(score_of("ks", of, 0)).error > 1.2 * estimate(score_of("ks", alone, 0)).error


def test_tasks_on_the_same_speakers_are_not_independent() -> None:
    of = outcomes(np.random.default_rng(0), 0.6)
    of = Outcomes(sources=of.sources, sizes=of.sizes, values=of.values[:1], factor=of.factor)
    once = estimate(score_of("pr", of, 0)).error
    both = [score_of("pr", of, 0), score_of("asr", of, 0)]
    assert estimate(weighted([(0.5, each) for each in both])).error == pytest.approx(once)
    assert estimate(weighted([(1.0, both[0]), (-1.0, both[1])])).error == pytest.approx(0, abs=1e-12)


def test_a_single_seed_says_nothing_about_seeds() -> None:
    of = outcomes(np.random.default_rng(0), 0.6)
    single = Outcomes(sources=of.sources, sizes=of.sizes, values=of.values[:1], factor=of.factor)
    assert [*score_of("ks", single, 0)[1]] == ["sources of ks"]
    assert len(score_of("ks", of, 0)[1]) == 2


def test_other_examples_cannot_be_paired() -> None:
    of = outcomes(np.random.default_rng(0), 0.6)
    other = Outcomes(sources=of.sources[1:], sizes=of.sizes[1:], values=[v[1:] for v in of.values])
    with pytest.raises(SlimvoxError, match="ks: the two models were scored on different examples"):
        score_of("ks", of, 0.0, other=other)


@given(value=st.floats(-1, 1), error=st.floats(1e-3, 1), degrees=st.floats(1, 1e3))
def test_p_and_interval_agree(value: float, error: float, degrees: float) -> None:
    found = Estimate(value=value, error=error, degrees=degrees)
    if abs(found.p - 0.05) > 1e-6:
        assert found.certain == (found.p < 0.05)


def test_folds_of_different_size_count_alike() -> None:
    folds = [
        Outcomes(sources=[("a",)] * count, sizes=[2.0] * count, values=[[value] * count])
        for count, value in ((3, 1.0), (30, 0.5))
    ]
    assert mean_of_folds(folds).scores[0] == pytest.approx((50 + 25) / 2)


@pytest.mark.parametrize("name", [each.name for each in SUPERB])
def test_outcomes_add_up_to_the_score(
    name: str, tmp_path: Path, write_tones: Callable[..., str], make_cache: Callable[..., FeatureCache]
) -> None:
    data = tone_set(name, tmp_path, write_tones)
    scores = task(name).run(data, make_cache(), tone_protocol(name), seeds=2)
    assert scores.outcomes.keys() == scores.test.keys() == {each.name for each in task(name).metrics}
    for metric, outcomes in scores.outcomes.items():
        # The equal error rate lies between two thresholds.
        tolerance = 60 if name == "asv" else 1e-6
        assert outcomes.scores == pytest.approx(scores.test[metric], abs=tolerance)
        assert len(outcomes.sources) == len(outcomes.sizes) == len(outcomes.values[0])


def test_one_speaker_says_nothing_about_others() -> None:
    of = outcomes(np.random.default_rng(0), 0.6)
    one = Outcomes(sources=[("a",)] * len(of.sizes), sizes=of.sizes, values=of.values, factor=of.factor)
    assert np.isnan(estimate(score_of("ks", one, mean(one))).error)


@pytest.mark.parametrize("spreads", [(1.0, 1.0), (2.0, 0.4), (0.4, 2.0)])
def test_the_standard_error_of_an_equal_error_rate(spreads: tuple[float, float]) -> None:
    """It is that of rates of other trials, also where the scores of one kind spread more."""
    draw = np.random.default_rng(0)
    same = [True] * 200 + [False] * 400
    trials = [Trial(first=str(n), second="x", same=each, split="test") for n, each in enumerate(same)]

    def scores() -> np.ndarray:
        return np.concatenate([draw.normal(1.5, spreads[0], 200), draw.normal(0, spreads[1], 400)])

    rates = [_error_rate(trials, scores()) for _ in range(300)]
    errors = []
    for _ in range(4):
        of = Outcomes.of([(str(number),) for number in range(600)], _counts(trials, [scores()]))
        errors.append(estimate(score_of("asv", of, of.scores[0])).error)
    assert np.mean(errors) == pytest.approx(np.std(rates), rel=0.15)


def test_scores_of_one_seed_that_are_not_finite_leave_the_others() -> None:
    trials = [Trial(first=str(n), second="x", same=n % 2 == 0, split="test") for n in range(40)]
    good = np.array([float(trial.same) for trial in trials], dtype=np.float32)
    good[:4] = 0.5
    of = Outcomes.of([(str(n),) for n in range(40)], _counts(trials, [good, np.full(40, np.nan)]))
    assert of.scores[0] < 20 and of.scores[1] == pytest.approx(100)
