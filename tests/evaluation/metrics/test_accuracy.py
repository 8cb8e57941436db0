import pytest

from slimvox.evaluation.metrics.accuracy import accuracy


def test_share_of_equal_pairs() -> None:
    assert accuracy(["a", "b", "c", "d"], ["a", "x", "c", "d"]) == 0.75


def test_all_of_a_tuple_has_to_be_right() -> None:
    right, wrong = ("increase", "heat", "none"), ("increase", "heat", "kitchen")
    assert accuracy([right, right], [right, wrong]) == 0.5


@pytest.mark.parametrize(("references", "guesses"), [([], []), (["a"], ["a", "b"])])
def test_bad_lengths(references, guesses) -> None:
    with pytest.raises(ValueError, match="one length above 0"):
        accuracy(references, guesses)
