"""Slot-type F1 and slot-value character error rate, as SUPERB measures slot filling.

A tagged transcript marks each slot by a token before its words and one after:
"book B-city new york E-city for B-party four E-party".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from slimvox.evaluation.metrics.error_rates import character_edits, character_error_rate
from slimvox.evaluation.outcomes import Counts

Slots = Sequence[tuple[str, str]]
"""(type, value) of each slot of an utterance, in order."""

_SLOT = re.compile(r"B-(\S+) (.+?) E-\1")
_OPENING, _CLOSING = re.compile(r"B-\S+ "), re.compile(r" E-\S+")


def parse_slots(tagged: str) -> list[tuple[str, str]]:
    """The slots that are opened and closed properly; others are ignored, and tokens inside a value are dropped.

    As in SUPERB's reference implementation, a slot is closed by the first token that begins like its own, and
    slots do not nest.
    """
    found = _SLOT.findall(" ".join(tagged.split()))
    return [(name, _CLOSING.sub("", _OPENING.sub("", value))) for name, value in found]


def slot_type_matches(references: Sequence[Slots], guesses: Sequence[Slots]) -> Counts:
    """F1 of the set of slot types of each utterance, 0 to 1; 1 if neither has a slot. All sizes are 1.

    Raises:
        ValueError: if there is no utterance, or the two differ in length.
    """
    _check(references, guesses)
    scores = []
    for reference, guess in zip(references, guesses, strict=True):
        expected, got = {name for name, _ in reference}, {name for name, _ in guess}
        score = 2 * len(expected & got) / (len(expected) + len(got)) if expected or got else 1.0
        scores.append((score, 1.0))
    return scores


def slot_value_edits(references: Sequence[Slots], guesses: Sequence[Slots]) -> Counts:
    """Edits and characters of each utterance's slots, each slot against the nearest guess for that type, or none.

    Guesses of types that a reference does not have cost nothing here; the F1 counts them.

    Raises:
        ValueError: if no reference has a slot, or the two differ in length.
    """
    _check(references, guesses)
    if not any(references):
        raise ValueError("no reference has a slot, so there are no values to compare")
    counts: list[tuple[float, float]] = []
    for reference, guess in zip(references, guesses, strict=True):
        expected = [value for _, value in reference]
        got = [_nearest(value, [other for kind, other in guess if kind == name]) for name, value in reference]
        own = character_edits(expected, got) if expected else ()
        counts.append((sum(edits for edits, _ in own), sum(size for _, size in own)))
    return counts


def _nearest(value: str, candidates: Sequence[str]) -> str:
    return min(candidates, key=lambda other: character_error_rate([value], [other]), default="")


def _check(references: Sequence[Slots], guesses: Sequence[Slots]) -> None:
    if not references or len(references) != len(guesses):
        raise ValueError(
            f"`references` and `guesses` must be of one length above 0, but are {len(references)} and {len(guesses)}"
        )
