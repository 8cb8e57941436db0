import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimvox.evaluation.metrics.slots import parse_slots, slot_type_matches, slot_value_edits
from slimvox.evaluation.outcomes import rate

slots = st.lists(
    st.tuples(
        st.sampled_from(["city", "party", "date"]),
        st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=2).map(" ".join),
    ),
    max_size=4,
)


def test_tokens_around_values() -> None:
    tagged = "BOOK B-city NEW YORK E-city FOR B-party FOUR E-party"
    assert parse_slots(tagged) == [("city", "NEW YORK"), ("party", "FOUR")]


@pytest.mark.parametrize(
    ("tagged", "found"),
    [
        ("B-city NEW YORK", []),  # never closed
        ("NEW YORK E-city", []),  # never opened
        ("B-city NEW E-party YORK", []),  # closed by another
        ("B-city NEW B-party YORK E-city", [("city", "NEW YORK")]),  # the inner token is no part of the value
        ("B-city  NEW   YORK E-city", [("city", "NEW YORK")]),  # blanks do not matter
        ("", []),
    ],
)
def test_broken_tags(tagged, found) -> None:
    assert parse_slots(tagged) == found


def test_f1_by_hand() -> None:
    references = [[("city", "a"), ("party", "b")], [("city", "a")], [], []]
    guesses = [[("city", "x"), ("date", "y"), ("date", "z")], [], [], [("date", "y")]]
    # {city, party} against {city, date}: 2 * 1 / 4; then nothing found; both empty; one too many
    assert rate(slot_type_matches(references, guesses)) == pytest.approx((0.5 + 0 + 1 + 0) / 4)


def test_value_errors_by_hand() -> None:
    references = [[("city", "abcd"), ("party", "xy")], [("city", "ab")]]
    # the nearest of two cities: 1 edit of 4; party missing: 2 of 2; the wrong type: 2 of 2
    guesses = [[("city", "zzzz"), ("city", "abce")], [("date", "ab")]]
    assert rate(slot_value_edits(references, guesses)) == pytest.approx((1 + 2 + 2) / (4 + 2 + 2))


def test_no_slots_at_all() -> None:
    with pytest.raises(ValueError, match="no reference has a slot"):
        rate(slot_value_edits([[]], [[("city", "a")]]))
    with pytest.raises(ValueError, match="one length above 0"):
        rate(slot_type_matches([], []))


@given(st.lists(slots, min_size=1, max_size=4).filter(any))
def test_a_perfect_guess(drawn) -> None:
    assert rate(slot_type_matches(drawn, drawn)) == 1
    assert rate(slot_value_edits(drawn, drawn)) == 0
    empty = [[] for _ in drawn]
    assert rate(slot_value_edits(drawn, empty)) == 1


@given(slots)
def test_tagging_and_parsing_undo_each_other(drawn) -> None:
    assert parse_slots(" and ".join(f"B-{name} {value} E-{name}" for name, value in drawn)) == drawn
