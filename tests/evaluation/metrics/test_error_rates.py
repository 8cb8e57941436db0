import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimvox.evaluation.metrics.error_rates import character_error_rate, word_error_rate

words = st.lists(st.text(alphabet="abc", min_size=1, max_size=3), max_size=6).map(" ".join)


def edits(reference: list[str], guess: list[str]) -> int:
    row = list(range(len(guess) + 1))
    for i, left in enumerate(reference, 1):
        previous, row[0] = row[0], i
        for j, right in enumerate(guess, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (left != right))
    return row[-1]


def test_word_errors_are_pooled_over_utterances() -> None:
    # one substitution and one insertion in 4 words, one deletion in 1: 3 / 5, while the mean of the rates would be 0.75
    assert word_error_rate(["a b c d", "e"], ["a x c d d", ""]) == pytest.approx(3 / 5)


def test_characters_include_blanks() -> None:
    assert character_error_rate(["ab c"], ["abc"]) == pytest.approx(1 / 4)
    assert character_error_rate([" ab"], ["ab"]) == pytest.approx(1 / 3)


def test_phones_are_blank_parted() -> None:
    assert word_error_rate(["HH AH0 L OW1"], ["HH AH1 L"]) == pytest.approx(2 / 4)


def test_insertions_against_an_empty_reference_count() -> None:
    assert word_error_rate(["a b", ""], ["a b", "x y"]) == pytest.approx(2 / 2)


@pytest.mark.parametrize("rate", [word_error_rate, character_error_rate])
def test_nothing_to_measure_against_is_an_error(rate) -> None:
    with pytest.raises(ValueError, match="all references are empty"):
        rate(["", " "], ["a", "b"])
    with pytest.raises(ValueError, match="2 references, but 1 guesses"):
        rate(["a", "b"], ["a"])


@given(
    st.lists(st.tuples(words, words), min_size=1, max_size=4).filter(lambda pairs: any(r for r, _ in pairs))
)
def test_equal_to_edit_distance(pairs) -> None:
    references, guesses = zip(*pairs, strict=True)
    total = sum(edits(r.split(), g.split()) for r, g in pairs)
    assert word_error_rate(references, guesses) == pytest.approx(
        total / sum(len(r.split()) for r in references)
    )
    total = sum(edits(list(r), list(g)) for r, g in pairs)
    assert character_error_rate(references, guesses) == pytest.approx(total / sum(map(len, references)))
