"""Audio that two tables have in common."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Hashable

import numpy as np
import numpy.typing as npt

from slimvox.audio.file_columns import FILES_AT_A_TIME
from slimvox.audio.recordings import AudioFile, Recording
from slimvox.audio.sources import AudioClip
from slimvox.audio.table import AudioTable


def overlapping(clips: AudioTable[AudioClip], others: AudioTable[AudioClip]) -> npt.NDArray[np.bool_]:
    """True for the clips of which any audio is also in one of the others (clips,).

    Two files are the same if their paths are, with symbolic links resolved, provided that they have the same name; no
    file is read. All channels of a file count as the same audio.
    """
    stretches: dict[Hashable, list[tuple[float, float]]] = defaultdict(list)
    names: set[bytes] = set()
    for other in others:
        stretches[_place(other.path)].append(_stretch(other))
        names.add(os.fsencode(other.path.name))
    has_name = np.zeros(len(clips.files), dtype=bool)
    for first in range(0, len(clips.files), FILES_AT_A_TIME):
        last = min(first + FILES_AT_A_TIME, len(clips.files))
        found = [name.rpartition(b"/")[2] in names for name in clips.files.encoded_names(first, last)]
        has_name[first:last] = found
    found_in = np.zeros(len(clips), dtype=bool)
    for index in np.flatnonzero(has_name[clips.file]).tolist():
        clip = clips[index]
        start, end = _stretch(clip)
        found_in[index] = any(
            start < other_end and other_start < end
            for other_start, other_end in stretches.get(_place(clip.path), ())
        )
    return found_in


def _place(file: AudioFile) -> Hashable:
    return file if isinstance(file, Recording) else os.path.realpath(file)


def _stretch(clip: AudioClip) -> tuple[float, float]:
    return clip.offset_seconds, clip.offset_seconds + clip.seconds
