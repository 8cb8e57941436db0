"""Accuracy: the share of guesses that are right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Label = TypeVar("Label")


def accuracy(references: Sequence[Label], guesses: Sequence[Label]) -> float:
    """Share of equal pairs, 0 to 1. A label may be a tuple: then all of it has to be right.

    Raises:
        ValueError: if there is nothing to compare, or the two differ in length.
    """
    if not references or len(references) != len(guesses):
        raise ValueError(
            f"`references` and `guesses` must be of one length above 0, but are {len(references)} and {len(guesses)}"
        )
    return sum(a == b for a, b in zip(references, guesses, strict=True)) / len(references)
