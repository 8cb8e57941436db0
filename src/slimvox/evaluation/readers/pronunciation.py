"""Pronunciations: lexicon files, and a program for words that are not in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from slimvox.audio.sources import read_text
from slimvox.util.errors import SlimvoxError

LEXICONS = (
    "librispeech-lexicon.txt",
    "librispeech-lexicon-200k-g2p.txt",
    "librispeech-lexicon-allothers-g2p.txt",
)


def find_lexicons(folders: Iterable[Path]) -> list[Path]:
    """Lexicons of `LEXICONS` found in one of the folders, in that order."""
    places = list(folders)
    return [
        path
        for name in LEXICONS
        for path in dict.fromkeys(place / name for place in places)
        if path.is_file()
    ]


def read_lexicon(paths: Sequence[Path]) -> dict[str, tuple[str, ...]]:
    """Read phones by word (in capitals); of several pronunciations, the first is used.

    Args:
        paths: files with a word and its phones on each line, separated by spaces or tabs.

    Raises:
        SlimvoxError: if a file cannot be read, or a line has a word without phones.
    """
    lexicon: dict[str, tuple[str, ...]] = {}
    for path in paths:
        for number, line in enumerate(read_text(path).splitlines(), 1):
            word, *phones = line.split() or [""]
            if word and not phones:
                raise SlimvoxError(
                    f"line {number} of {path} must be a word and its phones, but is {line!r} instead"
                )
            if word:
                lexicon.setdefault(word.upper(), tuple(phones))
    return lexicon


def english_pronouncer(unknown: Sequence[str]) -> Callable[[str], Sequence[str]]:
    """The package `g2p_en`, as a function from a word to phones.

    Args:
        unknown: the words that need it, for the message.

    Raises:
        SlimvoxError: if it is not installed, or its data is missing.
    """
    needed = f"{len(unknown)} words are in no lexicon, such as {unknown[0]}"
    try:
        from g2p_en import G2p
    except ImportError as error:
        raise SlimvoxError(
            f"{needed}; add a lexicon that has them (one of {', '.join(LEXICONS)}), or `pip install g2p_en`"
        ) from error
    try:
        converter = G2p()
    except Exception as error:  # it downloads missing data, which can fail in many ways
        raise SlimvoxError(
            f"{needed}, and g2p_en cannot load its data ({type(error).__name__}), which it downloads when it is first"
            " used: connect to the network once, or add a lexicon that has them"
        ) from error
    return lambda word: [phone for phone in converter(word) if phone.strip() and phone[0].isalpha()]
