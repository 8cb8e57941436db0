"""Word, phone and character error rates: edits over all references together, by jiwer.

Pooled, not averaged over utterances: (substitutions + deletions + insertions) of all pairs / length of all references.
A rate can exceed 1.
"""

from __future__ import annotations

from collections.abc import Sequence


def word_error_rate(references: Sequence[str], guesses: Sequence[str]) -> float:
    """Edits per reference word; words are separated by any number of spaces.

    Raises:
        ValueError: if the references contain no word, or the two differ in length.
    """
    import jiwer

    _check(references, guesses)
    return float(jiwer.wer(list(references), list(guesses)))


def phone_error_rate(references: Sequence[str], guesses: Sequence[str]) -> float:
    """Edits per reference phone; phones are separated by spaces, such as "HH AH0 L OW1".

    Raises:
        ValueError: if the references contain no phone, or the two differ in length.
    """
    return word_error_rate(references, guesses)


def character_error_rate(references: Sequence[str], guesses: Sequence[str]) -> float:
    """Edits per reference character; spaces are characters too.

    Raises:
        ValueError: if the references contain no character, or the two differ in length.
    """
    import jiwer

    _check(references, guesses)
    characters = jiwer.ReduceToListOfListOfChars()  # jiwer's own default strips spaces at both ends as well
    return float(
        jiwer.cer(
            list(references),
            list(guesses),
            reference_transform=characters,
            hypothesis_transform=characters,
        )
    )


def _check(references: Sequence[str], guesses: Sequence[str]) -> None:
    if len(references) != len(guesses):
        raise ValueError(f"there are {len(references)} references, but {len(guesses)} guesses")
    if not any(reference.strip() for reference in references):
        raise ValueError("all references are empty: an error rate has nothing to be measured against")
