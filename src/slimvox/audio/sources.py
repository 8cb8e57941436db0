"""Kinds of audio files, and references to segments of them."""

from __future__ import annotations

import gzip
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from slimvox.audio.recordings import AudioFile
from slimvox.audio.remote import Place, RemoteFile, is_remote
from slimvox.util.errors import SlimvoxError, reason_of

AUDIO_EXTENSIONS = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3"),
    *(".aif", ".aiff", ".aifc", ".au", ".snd", ".w64", ".caf", ".sph"),
)
"""Extensions of audio files in a folder: the formats that libsndfile decodes."""
UNSUPPORTED_EXTENSIONS = (
    *(".m4a", ".mp4", ".m4b", ".aac", ".wma", ".webm", ".mka", ".weba", ".amr", ".3gp"),
    *(".ac3", ".eac3", ".dts", ".ape", ".wv", ".tta", ".mpc", ".spx", ".shn", ".ra"),
)
"""Further audio, which libsndfile does not decode: in a folder it is counted and named as skipped."""

# fmt: off
SkipReason = Literal[
    "missing", "empty", "unreadable", "unsupported format", "no such channel",
    "too short", "truncated", "silent", "silent part",
]
# fmt: on
"""Reason for skipping audio."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioSource:
    """One stretch of one audio file, as named by the user, not yet checked."""

    path: AudioFile
    offset_seconds: float = 0.0
    """Start within the file, in seconds."""
    seconds: float | None = None
    """Duration in seconds; None means to the end of the file."""
    channel: int | None = None
    """Channel of the file, counted from 0; None for the mean of all channels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioClip:
    """A stretch of an audio file whose length is known."""

    path: AudioFile
    offset_seconds: float
    seconds: float
    channel: int | None = None
    """Channel, counted from 0; None for the mean of all."""


def read_text(path: Place) -> str:
    """Read the text of a list or manifest, unpacked where it ends in ``.gz``, a byte-order mark left out.

    Raises:
        SlimvoxError: the file cannot be read, is not a regular file, or is not UTF-8.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        # Reading from a pipe could block forever.
        raise SlimvoxError(f"`{path}` cannot be read: it is not a file.")
    is_packed = path.suffix.lower() == ".gz"
    try:
        with open(path, "rb") if isinstance(path, Path) else path.open() as file:
            content = file.read()
        content = gzip.decompress(content) if is_packed else content
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise SlimvoxError(f"`{path}` cannot be read: {reason_of(error)}.") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SlimvoxError(f"`{path}` must be UTF-8 text, but its byte {error.start} is not.") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def end_tolerance_seconds(seconds: float | npt.NDArray[Any]) -> Any:
    """Number of seconds by which a segment of this length may exceed its file, because times in tables are rounded.

    One that asks for much more was cut from another file, or its times are not in seconds.
    """
    return np.maximum(1.0, 0.1 * seconds)


def joined_path(folder: Place, name: str) -> Place:
    """A path or URL in a file, relative to the folder of that file."""
    return RemoteFile(name) if is_remote(name) else folder / name


def absolute(path: AudioFile) -> str:
    """Absolute path, or URL."""
    return os.path.abspath(path) if isinstance(path, Path) else os.fspath(path)


def located(folder: Place, name: str) -> Place:
    """A path in a file of toolkits that start in the current folder: relative to `folder`, else to that one."""
    beside = joined_path(folder, name)
    return Path(name) if not os.path.exists(beside) and os.path.exists(name) else beside
