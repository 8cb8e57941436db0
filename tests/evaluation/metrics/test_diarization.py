import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from slimvox.evaluation.metrics.diarization import (
    Decision,
    best_decision,
    decide,
    diarization_error_rate,
    diarization_errors,
)

activities = st.integers(1, 12).flatmap(
    lambda frames: st.tuples(*[arrays(bool, (frames, 2), elements=st.booleans())] * 2)
)


def of(*speakers: str) -> np.ndarray:
    return np.array([[letter == "x" for letter in speaker] for speaker in speakers]).T


def test_the_three_kinds_of_error_by_hand() -> None:
    reference = of("xxxx....", "..xxxx..")
    guess = of("xxx.....", "...xxx.x")
    errors = diarization_errors(reference, guess)
    # frame 2: the second speaker missed; frame 3: the first missed; frame 7: nobody speaks
    assert (errors.scored, errors.missed, errors.false_alarms, errors.confused) == (8, 2, 1, 0)
    assert errors.rate == pytest.approx(3 / 8)


def test_confusion() -> None:
    errors = diarization_errors(of("xxxx..", "....xx"), of("xx....", "..xxxx"))
    assert (errors.missed, errors.false_alarms, errors.confused) == (0, 0, 2)


def test_speakers_are_matched_in_each_recording() -> None:
    one = of("xx..", "..xx")
    assert diarization_error_rate([one, one], [one, one[:, ::-1]]) == 0


def test_errors_are_pooled_over_recordings() -> None:
    short, long = of("x"), of("xxxxxxxxx")
    assert diarization_error_rate([short, long], [~short, long]) == pytest.approx(1 / 10)


def test_numbers_of_speakers_may_differ() -> None:
    errors = diarization_errors(of("xxxx"), of("xx..", "..xx", "...x"))
    assert (errors.confused, errors.false_alarms) == (2, 1)


def test_median_filter_by_hand() -> None:
    probabilities = np.array([[0.9, 0.9, 0.1, 0.9, 0.1, 0.1, 0.9, 0.1]]).T
    smoothed = decide(probabilities, Decision(threshold=0.5, median=3))
    assert smoothed[:, 0].tolist() == [True, True, True, False, False, False, False, False]
    assert decide(probabilities, Decision(threshold=0.5, median=1))[:, 0].sum() == 4
    with pytest.raises(ValueError, match="odd"):
        decide(probabilities, Decision(threshold=0.5, median=2))


def test_the_best_decision_is_the_one_that_undoes_the_noise() -> None:
    reference = of("." * 12 + "x" * 24 + "." * 12)
    probabilities = np.where(reference, 0.65, 0.35)
    probabilities[20], probabilities[46] = 0.2, 0.9
    decision, rate = best_decision([reference], [probabilities])
    assert decision == Decision(threshold=0.4, median=11)
    assert rate == 0


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="nobody speaks"):
        diarization_error_rate([of("..")], [of("xx")])
    with pytest.raises(ValueError, match="frames, speakers"):
        diarization_errors(of(".."), of("..."))


@given(activities)
def test_a_perfect_and_an_empty_guess(pair) -> None:
    reference, guess = pair
    assert diarization_errors(reference, reference[:, ::-1]).confused == 0
    empty = diarization_errors(reference, np.zeros_like(guess))
    assert (empty.missed, empty.false_alarms, empty.confused) == (reference.sum(), 0, 0)


@given(activities.filter(lambda pair: pair[0].any()))
def test_same_as_pyannote(pair) -> None:
    core, metrics = pytest.importorskip("pyannote.core"), pytest.importorskip("pyannote.metrics.diarization")

    def annotation(activity):
        turns = core.Annotation(uri="recording")
        for speaker, frames in enumerate(activity.T):
            padded = np.concatenate([[False], frames, [False]]).astype(int)
            changes = np.flatnonzero(np.diff(padded))
            for start, end in zip(changes[::2], changes[1::2], strict=True):
                turns[core.Segment(int(start), int(end)), f"{speaker}-{start}"] = str(speaker)
        return turns

    reference, guess = pair
    measure = metrics.DiarizationErrorRate(collar=0.0, skip_overlap=False)
    whole = core.Timeline([core.Segment(0, len(reference))])
    expected = measure(annotation(reference), annotation(guess), uem=whole)
    assert diarization_error_rate([reference], [guess]) == pytest.approx(expected)


@given(arrays(float, (17, 2), elements=st.floats(0, 1)), st.sampled_from([1, 3, 5, 11]))
def test_same_as_scipys_median_filter(probabilities, median) -> None:
    signal = pytest.importorskip("scipy.signal")
    decided = decide(probabilities, Decision(threshold=0.5, median=median))
    expected = signal.medfilt((probabilities > 0.5).astype(float), (median, 1))
    assert np.array_equal(decided, expected.astype(bool))
