"""Kaldi's tables: `wav.scp`, and `segments` beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from slimvox.audio.columns import stretch_of
from slimvox.audio.remote import Place
from slimvox.audio.sources import AudioSource, absolute, located, read_text
from slimvox.util.errors import SlimvoxError

SCP_EXTENSION = ".scp"
SEGMENTS_NAME = "segments"
_SCP_NAME = "wav.scp"
_IN_ARCHIVE = re.compile(r":\d+(\[.*\])?$")


def is_kaldi(path: Place) -> bool:
    """True if a path has the name of one of Kaldi's tables of audio."""
    return path.suffix.lower() == SCP_EXTENSION or path.name == SEGMENTS_NAME


def read_kaldi(path: Place, watch: Callable[[str], None] = lambda _: None) -> list[AudioSource]:
    """List the recordings of a `wav.scp`, or the stretches of a `segments` file with its `wav.scp` beside it.

    Args:
        path: the table.
        watch: function that is called with the other file that is read.

    Raises:
        SlimvoxError: a line that cannot be understood, names a command or a place in an archive, or a recording that
            `wav.scp` does not have.
    """
    if path.name != SEGMENTS_NAME:
        return [AudioSource(path=file) for file in _recordings(path).values()]
    watch(absolute(path.parent / _SCP_NAME))
    recordings = _recordings(path.parent / _SCP_NAME)
    found = []
    for where, fields in _lines(path):
        if len(fields) not in (4, 5):
            raise SlimvoxError(
                f"{where} must be `SEGMENT RECORDING START END`, but has {len(fields)} values instead."
            )
        if fields[1] not in recordings:
            raise SlimvoxError(
                f"{where} names the recording {fields[1]!r}, which `{_SCP_NAME}` beside it does not have."
            )
        # Kaldi writes -1 for the end of the recording.
        row = {"start": fields[2], "end": "" if float_is(fields[3], -1.0) else fields[3]}
        stretch = stretch_of({**row, "channel": fields[4] if len(fields) == 5 else ""}, where)
        found.append(
            AudioSource(
                path=recordings[fields[1]],
                offset_seconds=stretch.offset_seconds,
                seconds=stretch.seconds,
                channel=stretch.channel,
            )
        )
    return found


def float_is(text: str, value: float) -> bool:
    """True if a text is this number."""
    try:
        return float(text) == value
    except ValueError:
        return False


def _recordings(path: Place) -> dict[str, Place]:
    """Files by the recording's name."""
    found: dict[str, Place] = {}
    for where, (name, *rest) in _lines(path, 1):
        file = " ".join(rest).strip()
        if not file:
            raise SlimvoxError(f"{where} must be `RECORDING PATH`, but has no path.")
        if file.endswith("|"):
            raise SlimvoxError(
                f"{where} is a command, which is not run: write its output to a file, and give that."
            )
        if _IN_ARCHIVE.search(file):
            raise SlimvoxError(
                f"{where} names a place in an archive, which is not read: give files of audio."
            )
        if name in found:
            raise SlimvoxError(f"{where} names the recording {name!r} for the second time.")
        found[name] = located(path.parent, file)
    if not found:
        raise SlimvoxError(f"`{path}` names no audio: it has no lines.")
    return found


def _lines(path: Place, splits: int = -1) -> Iterator[tuple[str, list[str]]]:
    """Place and values of each line that is not empty."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield f"Line {number} of `{path}`", line.split(maxsplit=splits)
