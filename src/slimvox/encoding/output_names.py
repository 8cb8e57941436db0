"""Names of the output files for hidden states."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from slimvox.audio import AudioInput
from slimvox.audio.sources import UNSUPPORTED_EXTENSIONS, AudioSource
from slimvox.util.errors import SlimvoxError

MOST_NAME_BYTES = 255


def output_names(found: Sequence[AudioSource], sources: Sequence[AudioInput], *, suffix: str) -> list[Path]:
    """Give each stretch of audio the relative path of its output; all are different.

    Args:
        found: the audio.
        sources: sources of the audio; a folder among them counts as one folder, however deep in it the audio is.
        suffix: suffix of the outputs, with its dot.

    Raises:
        SlimvoxError: if the audio has no common folder (two drives on Windows).
    """
    paths = [Path(os.path.abspath(source.path)) for source in found]
    named = [source for source in sources if isinstance(source, (str, os.PathLike))]
    absolute = [os.path.abspath(Path(source).expanduser()) for source in named]
    folders = {path for path in absolute if os.path.isdir(path)}
    parents = {str(path.parent) for path in paths}
    parents = {
        path for path in parents if not any(path == f or Path(f) in Path(path).parents for f in folders)
    }
    try:
        root = os.path.commonpath(folders | parents)
    except ValueError as error:
        raise SlimvoxError(
            "The audio must be on one drive, so that the outputs can be named after it."
        ) from error

    def name(index: int, keep_suffix: bool) -> Path:
        source, path = found[index], paths[index]
        stem = path.name if keep_suffix else path.stem
        if source.offset_seconds or source.seconds is not None:
            end = "" if source.seconds is None else round(source.offset_seconds + source.seconds, 6)
            stem += f"_{round(source.offset_seconds, 6)}-{end}"
        if source.channel is not None:
            stem += f"_channel{source.channel}"
        return path.relative_to(root).with_name(_fitting(stem, suffix))

    # A file that is not decoded has no output, and must not change the names of others. Keeping a suffix may itself
    # create a clash (`a.wav`, `a.flac`, `a.wav.mp3`), so this is repeated until nothing changes.
    kept = {index for index, path in enumerate(paths) if path.name.lower().endswith(UNSUPPORTED_EXTENSIONS)}
    names = [name(index, index in kept) for index in range(len(found))]
    while True:
        counts = Counter(os.path.normcase(path) for path in names)
        meeting = {index for index, path in enumerate(names) if counts[os.path.normcase(path)] > 1} - kept
        if not meeting:
            return names
        kept |= meeting
        for index in meeting:
            names[index] = name(index, True)


def _fitting(stem: str, suffix: str) -> str:
    """A file name of at most as many bytes as file systems allow; a longer one is cut, and made unique by its hash."""
    whole = os.fsencode(stem + suffix)
    if len(whole) <= MOST_NAME_BYTES:
        return stem + suffix
    tail = f"~{hashlib.sha256(whole).hexdigest()[:12]}{suffix}"
    # Cutting inside a character leaves invalid bytes, which are dropped.
    cut = os.fsencode(stem)[: MOST_NAME_BYTES - len(tail.encode())].decode("utf-8", "ignore")
    return cut + tail
