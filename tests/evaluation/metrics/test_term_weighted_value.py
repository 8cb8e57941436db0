import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimvox.evaluation.metrics.term_weighted_value import (
    QUESST_COSTS,
    DetectionCosts,
    maximum_term_weighted_value,
)


def brute_force(scores, matches, beta: float, queries: int, documents: int) -> float:
    best = 0.0
    for threshold in np.unique(scores):
        value = 0.0
        for row, wanted in zip(scores, matches, strict=True):
            if not wanted.any():
                continue
            accepted = row >= threshold
            hits = (accepted & wanted).sum() / wanted.sum()
            others = len(wanted) + documents - wanted.sum()
            alarms = (accepted & ~wanted).sum() / others if others else 0.0
            value += hits - beta * alarms
        best = max(best, value / (matches.any(axis=1).sum() + queries))
    return best


@st.composite
def searches(draw):
    shape = draw(st.integers(1, 4)), draw(st.integers(2, 6))
    size = shape[0] * shape[1]
    scores = np.array(draw(st.lists(st.integers(-4, 4), min_size=size, max_size=size)), dtype=float).reshape(
        shape
    )
    matches = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size))).reshape(shape)
    matches[0, 0] = True
    return scores, matches


def test_quessts_costs() -> None:
    assert QUESST_COSTS.beta == pytest.approx(12.49)
    prior = QUESST_COSTS.target_prior
    effective = prior * 100 / (prior * 100 + (1 - prior))
    assert effective == pytest.approx(0.0741289, abs=2e-7)


def test_perfect_and_useless_searches() -> None:
    matches = np.array([[True, False, False], [False, False, True]])
    perfect = maximum_term_weighted_value([[2, 0, 0], [0, 0, 2]], matches)
    assert (perfect.value, perfect.threshold) == (1.0, 2.0)
    useless = maximum_term_weighted_value([[0, 2, 2], [2, 2, 0]], matches)
    assert (useless.value, useless.threshold) == (0.0, float("inf"))


def test_one_threshold_for_all_queries_by_hand() -> None:
    # At 3: the first query is found, 1/2. At 2: both are found, with one false alarm in 3: 1 - beta / 3 / 2.
    scores, matches = [[3, 0, 0, 0], [2, 2, 0, 0]], [[True, False, False, False], [True, False, False, False]]
    mild = DetectionCosts(target_prior=0.5, miss=2, false_alarm=1)  # beta = 0.5
    assert maximum_term_weighted_value(scores, matches, costs=mild).value == pytest.approx(1 - 0.5 / 3 / 2)
    assert maximum_term_weighted_value(scores, matches).value == pytest.approx(1 / 2)


def test_queries_that_occur_nowhere_are_left_out() -> None:
    matches = np.array([[True, False], [False, False]])
    assert maximum_term_weighted_value([[1, 0], [9, 9]], matches).value == 1


def test_what_was_not_scored_counts_as_not_found() -> None:
    scores, matches = [[2, 3, 0, 0]], [[True, False, False, False]]
    assert maximum_term_weighted_value(scores, matches).value == 0
    # One false alarm among 1,003 documents in which the query does not occur.
    value = 1 - QUESST_COSTS.beta / 1003
    assert maximum_term_weighted_value(scores, matches, unscored_documents=1000).value == pytest.approx(value)
    whole = maximum_term_weighted_value(scores, matches, unscored_documents=1000, unscored_queries=3)
    assert whole.value == pytest.approx(value / 4)


@pytest.mark.parametrize(
    ("scores", "matches", "message"),
    [
        ([[1.0, 2.0]], [[False, False]], "no query occurs"),
        ([[1.0, float("nan")]], [[True, False]], "finite"),
        ([1.0, 2.0], [True, False], "must be"),
    ],
)
def test_bad_input(scores, matches, message) -> None:
    with pytest.raises(ValueError, match=message):
        maximum_term_weighted_value(scores, matches)


@given(searches(), st.floats(0.001, 0.9), st.integers(0, 2), st.integers(0, 5))
def test_same_as_trying_every_threshold(search, prior, queries, documents) -> None:
    scores, matches = search
    costs = DetectionCosts(target_prior=prior, miss=10)
    result = maximum_term_weighted_value(
        scores, matches, costs=costs, unscored_queries=queries, unscored_documents=documents
    )
    assert result.value == pytest.approx(brute_force(scores, matches, costs.beta, queries, documents))
    assert 0 <= result.value <= 1
