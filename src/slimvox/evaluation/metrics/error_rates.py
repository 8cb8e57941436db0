"""Word, phone and character error rates: edits over all references together, by jiwer.

Pooled, not averaged over utterances: (substitutions + deletions + insertions) of all pairs / length of all references.
A rate can exceed 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slimvox.evaluation.outcomes import Counts, rate


def word_edits(references: Sequence[str], guesses: Sequence[str]) -> Counts:
    """Edits and number of words of each reference; words are separated by any number of spaces.

    Raises:
        ValueError: if the references contain no word, or the two differ in length.
    """
    import jiwer

    _check(references, guesses)
    return _counts(jiwer.process_words(list(references), list(guesses)))


def character_edits(references: Sequence[str], guesses: Sequence[str]) -> Counts:
    """Edits and number of characters of each reference; spaces are characters too.

    Raises:
        ValueError: if the references contain no character, or the two differ in length.
    """
    import jiwer

    _check(references, guesses)
    characters = jiwer.ReduceToListOfListOfChars()  # jiwer's own default strips spaces at both ends as well
    return _counts(
        jiwer.process_characters(
            list(references),
            list(guesses),
            reference_transform=characters,
            hypothesis_transform=characters,
        )
    )


def word_error_rate(references: Sequence[str], guesses: Sequence[str]) -> float:
    """Edits per reference word, see `word_edits`."""
    return rate(word_edits(references, guesses))


def character_error_rate(references: Sequence[str], guesses: Sequence[str]) -> float:
    """Edits per reference character, see `character_edits`."""
    return rate(character_edits(references, guesses))


def _counts(output: Any) -> Counts:
    """Edits and length of each reference from an alignment."""
    edits = (
        sum(
            max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
            for chunk in chunks
            if chunk.type != "equal"
        )
        for chunks in output.alignments
    )
    return list(zip(edits, map(len, output.references), strict=True))


def _check(references: Sequence[str], guesses: Sequence[str]) -> None:
    if len(references) != len(guesses):
        raise ValueError(f"there are {len(references)} references, but {len(guesses)} guesses")
    if not any(reference.strip() for reference in references):
        raise ValueError("all references are empty: an error rate has nothing to be measured against")
