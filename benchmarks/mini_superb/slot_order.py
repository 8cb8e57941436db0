"""The order in which the slots of a coffee order are spoken, read off what a recogniser heard.

The values themselves come from the set's labels; only their order is derived. `Value` words are looked for in the text
with room for misheard ones; a value that is not found takes the place that its slot most often has.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LEAST_LIKENESS = 0.7
"""Least similarity, from 0 to 1, of the letters of a value and of the transcript; below it the value is not found."""
SPOKEN_NUMBERS = {"8": "eight", "12": "twelve", "16": "sixteen", "20": "twenty", "oz": "ounce", "1": "one"}
Slots = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Heard:
    """Positions at which the values of one order were heard."""

    places: Mapping[str, int]
    """Slot to the first of its words in the text; slots that were not heard are not in it."""


def locate(slots: Slots, text: str) -> Heard:
    """Find the values in a text, the best match first; each word of the text serves one value."""
    words = spoken_words(text)
    candidates = sorted(
        (
            (likeness(value, words[first:last]), len(value), slot, first, last)
            for slot, value in slots.items()
            for first, last in _spans(len(words), len(value.split()))
        ),
        reverse=True,
    )
    taken: set[int] = set()
    places: dict[str, int] = {}
    for like, _, slot, first, last in candidates:
        if like >= LEAST_LIKENESS and slot not in places and not taken.intersection(range(first, last)):
            places[slot] = first
            taken.update(range(first, last))
    return Heard(places=places)


def spoken_words(text: str) -> list[str]:
    """Small letters, numbers as words, nothing else."""
    spaced = re.sub(r"(\d+)", r" \1 ", text.lower())
    return [SPOKEN_NUMBERS.get(word, word) for word in re.findall(r"[a-z]+|\d+", spaced)]


def likeness(value: str, words: Sequence[str]) -> float:
    """Similarity in writing of a value and some words, 0 to 1."""
    return difflib.SequenceMatcher(None, value, " ".join(words), autojunk=False).ratio()


def spoken_order(slots: Slots, heard: Heard, usual: Sequence[str]) -> list[str]:
    """The slots in the order of speech; those that were not heard are put where `usual` has them."""
    order = sorted(heard.places, key=lambda slot: heard.places[slot])
    for slot in (slot for slot in usual if slot in slots and slot not in heard.places):
        earlier = set(usual[: usual.index(slot)])
        place = max((index + 1 for index, other in enumerate(order) if other in earlier), default=0)
        order.insert(place, slot)
    return order


def usual_order(all_heard: Sequence[Heard], names: Sequence[str]) -> list[str]:
    """The order of the slots by how many of the others each mostly comes before."""
    before: Counter[tuple[str, str]] = Counter()
    for heard in all_heard:
        for first, second in itertools.permutations(heard.places, 2):
            before[first, second] += heard.places[first] < heard.places[second]
    wins = {
        name: sum(before[name, other] > before[other, name] for other in names if other != name)
        for name in names
    }
    return sorted(names, key=lambda name: -wins[name])


def _spans(words: int, length: int) -> list[tuple[int, int]]:
    """Starts and ends of all stretches of about so many words."""
    return [
        (first, first + count)
        for count in range(max(1, length - 1), length + 2)
        for first in range(words - count + 1)
    ]
