import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimvox.evaluation.metrics.equal_error_rate import equal_error_rate


@st.composite
def trials(draw):
    count = draw(st.integers(2, 30))
    # few distinct values, so that ties are frequent
    scores = draw(st.lists(st.integers(-3, 3), min_size=count, max_size=count))
    targets = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    targets[0], targets[1] = True, False
    return np.array(scores, dtype=float), np.array(targets)


def test_separable_trials_give_zero() -> None:
    result = equal_error_rate([0.9, 0.8, 0.2, 0.1], [True, True, False, False])
    assert result.rate == 0
    assert 0.2 <= result.threshold <= 0.9


def test_one_swap_of_two_and_two() -> None:
    # accepting the best two: one of two targets missed, one of two others accepted
    assert equal_error_rate([0.9, 0.7, 0.8, 0.1], [True, True, False, False]).rate == 0.5


def test_interpolated_between_thresholds() -> None:
    # misses and false alarms go from (1/3, 0) to (1/3, 1/2): they cross at 1/3, two thirds of the way
    result = equal_error_rate([5, 4, 3, 2, 1], [True, True, False, True, False])
    assert result.rate == pytest.approx(1 / 3)
    assert result.threshold == pytest.approx(4 - 2 / 3)


def test_a_constant_score_gives_one_half() -> None:
    assert equal_error_rate([1.0] * 5, [True, False, False, False, True]).rate == 0.5


@pytest.mark.parametrize(
    ("scores", "targets", "message"),
    [
        ([1, 2], [True, True], "both kinds"),
        ([1, 2], [False, False], "both kinds"),
        ([1, float("nan")], [True, False], "finite"),
        ([1, 2, 3], [True, False], "must be"),
    ],
)
def test_bad_input(scores, targets, message) -> None:
    with pytest.raises(ValueError, match=message):
        equal_error_rate(scores, targets)


@given(trials())
def test_turning_the_scores_round_turns_the_rate_round(drawn) -> None:
    scores, targets = drawn
    rate = equal_error_rate(scores, targets).rate
    assert 0 <= rate <= 1
    assert equal_error_rate(-scores, ~targets).rate == pytest.approx(rate)
    assert equal_error_rate(-scores, targets).rate == pytest.approx(1 - rate)
    assert equal_error_rate(np.exp(scores), targets).rate == pytest.approx(rate)


@given(trials())
def test_same_as_the_crossing_of_scikit_learns_curve(drawn) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    scores, targets = drawn
    false_alarms, hits, _ = metrics.roc_curve(targets, scores)
    grid = np.linspace(0, 1, 20_001)
    gap = 1 - np.interp(grid, false_alarms, hits) - grid
    # where the curve rises vertically np.interp takes its upper end; the crossing is where the gap changes sign
    crossing = grid[int(np.argmax(gap <= 0))]
    assert equal_error_rate(scores, targets).rate == pytest.approx(crossing, abs=2e-4)
