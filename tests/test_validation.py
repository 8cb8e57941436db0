"""The checked door: what values are let through, and in which words others are refused."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimvox.util.errors import SlimvoxError
from slimvox.util.json_files import parse_json
from slimvox.util.validation import (
    Count,
    Positive,
    ProperShare,
    Range,
    Seed,
    Share,
    build,
    check_fields,
    checked_arguments,
    convert,
    parse_value,
)


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: Positive = 1.0


@dataclass(frozen=True, kw_only=True)
class Outer:
    steps: Count
    kind: Literal["a", "b"] = "a"
    share: Share | None = None
    inner: Inner = field(default_factory=Inner)
    rates: tuple[Positive, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    names: Sequence[str] = ()


NOTHING_FITS = st.one_of(
    st.none(), st.booleans(), st.text(), st.lists(st.integers(), max_size=2), st.just(float("nan"))
)


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (int, True, "a whole number, but is True"),
        (int, 1.0, "a whole number, but is 1.0"),
        (Count, 0, "at least 1, but is 0"),
        (Count, 10**13, "at most 1000000000000, but is 10000000000000"),
        (Seed, -1, "at least 0, but is -1"),
        (float, float("nan"), "a finite number, but is nan"),
        (Positive, float("inf"), "a finite number, but is inf"),
        (float, 10**400, "a finite number, but is 1000"),
        (Positive, 0.0, "above 0, but is 0.0"),
        (Share, 1.5, "between 0 and 1, but is 1.5"),
        (ProperShare, 1, "above 0 and below 1, but is 1"),
        (Annotated[float, Range(at_least=0, below=1)], 1, "below 1, but is 1"),
        (Literal["a", "b"], "c", "one of a, b, but is 'c'"),
        (Share | None, "x", "a finite number, but is 'x'"),
        (Mapping[str, int], [], "a table, but is []"),
        (Sequence[str], "abc", "a list, but is 'abc'"),
        (str, "x" * 1000, None),
        (str, 3, "a text, but is 3"),
    ],
)
def test_a_value_is_let_through_or_refused_in_the_same_words(
    hint: Any, value: Any, expected: str | None
) -> None:
    if expected is None:
        assert convert(hint, value, "x") == value
        return
    with pytest.raises(SlimvoxError) as caught:
        convert(hint, value, "x")
    assert str(caught.value).startswith(f"`x` must be {expected}") and len(str(caught.value)) < 200


def test_numbers_of_numpy_are_numbers() -> None:
    assert convert(Positive, np.float32(0.5), "x") == 0.5 and convert(Count, np.int64(3), "x") == 3


def test_fields_are_built_and_all_problems_named() -> None:
    data = {"steps": 3, "inner": {"rate": 2}, "rates": [1, 0.5], "counts": {"a": 1}, "names": ["x"]}
    built = build(Outer, data)
    assert built == Outer(
        steps=3, inner=Inner(rate=2.0), rates=(1.0, 0.5), counts={"a": 1}, names=["x"]
    ) and isinstance(built.inner.rate, float)
    with pytest.raises(SlimvoxError, match=r"`steps` must be at least 1.*; `inner.rate` must be above 0"):
        build(Outer, {"steps": 0, "inner": {"rate": 0}})
    with pytest.raises(SlimvoxError, match=r"`o.rates\[1\]` must be a finite number"):
        build(Outer, {"steps": 1, "rates": [1, "x"]}, "o")
    with pytest.raises(SlimvoxError, match=r"there is no field `o\.stepz`; known fields: steps"):
        build(Outer, {"steps": 1, "stepz": 1}, "o")
    assert build(Outer, {"steps": 1, "stepz": 1}, ignore_unknown=True) == Outer(steps=1)
    with pytest.raises(SlimvoxError, match="`steps` must be given, but is missing"):
        build(Outer, {})
    with pytest.raises(SlimvoxError, match=r"`inner.rate` must be above 0.*"):
        check_fields(Outer(steps=1, inner=Inner(rate=-1.0)))


@settings(max_examples=40)
@given(value=NOTHING_FITS)
def test_other_types_are_never_let_through(value: Any) -> None:
    for hint in (Count, Positive, Literal["a"], Mapping[str, int]):
        if value != "a":
            with pytest.raises(SlimvoxError):
                convert(hint, value, "x")


@settings(max_examples=40)
@given(text=st.text(max_size=20))
def test_any_text_is_a_value_or_a_sentence(text: str) -> None:
    for hint in (Count, Positive, bool, Literal["a"], tuple[Positive, ...], Share | None):
        with contextlib.suppress(SlimvoxError):
            parse_value(hint, text, "x")


def test_arguments_are_checked_by_their_annotations() -> None:
    @checked_arguments
    def function(
        path: Any, *, count: Count = 1, kind: Literal["a"] = "a", rate: Positive | None = None
    ) -> int:
        return count

    assert function("anything", count=2) == 2
    for wrong in ({"count": 0}, {"kind": "b"}, {"rate": float("nan")}):
        (name,) = wrong
        with pytest.raises(SlimvoxError, match=f"`{name}` must be"):
            function("x", **wrong)  # type: ignore[arg-type]


def test_a_single_text_for_a_list_of_texts_is_a_list_of_one() -> None:
    @checked_arguments
    def function(
        names: Sequence[str] = (),
        *,
        files: str | Path | Sequence[str | Path] = (),
        more: Sequence[str | Path] | None = None,
    ) -> Any:
        return names, files, more

    assert function("ks", files="a", more="b") == (("ks",), "a", ("b",))
    assert function(more=Path("b")) == ((), (), (Path("b"),))
    assert function(["ks", "pr"], files=["a"]) == (["ks", "pr"], ["a"], None)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"a":' * 100_000, b"\xff", "9" * 5000])
def test_json_that_is_not_is_one_sentence(text: str | bytes) -> None:
    with pytest.raises(SlimvoxError, match=r"^here is not valid JSON: "):
        parse_json(text, "here")
