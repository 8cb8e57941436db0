"""Kinds of audio files, and references to segments of them."""

from __future__ import annotations

import gzip
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

from slimvox.audio.dataset_recording import DatasetRecording
from slimvox.util.errors import SlimvoxError

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


AudioFile = Path | DatasetRecording
"""Location of audio: a separate file, or a row of a data set."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioSource:
    """One stretch of one audio file, as named by the user; nothing about it was checked yet."""

    path: AudioFile
    offset_seconds: float = 0.0
    """Start within the file, in seconds."""
    seconds: float | None = None
    """Duration in seconds; None means to the end of the file."""
    channel: int | None = None
    """Channel of the file, counted from 0; None for the mean of all channels."""


def read_text(path: Path) -> str:
    """Read the text of a list or manifest, unpacked where it ends in ``.gz``, a byte-order mark left out.

    Raises:
        SlimvoxError: the file cannot be read, is not a regular file, or is not UTF-8.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        # Reading from a pipe would wait for its writer for ever.
        raise SlimvoxError(f"`{path}` cannot be read: it is not a file.")
    is_packed = path.suffix.lower() == ".gz"
    try:
        with gzip.open(path) if is_packed else open(path, "rb") as file:
            content = file.read()
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise SlimvoxError(
            f"`{path}` cannot be read: {getattr(error, 'strerror', None) or error}."
        ) from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SlimvoxError(f"`{path}` must be UTF-8 text, but its byte {error.start} is not.") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def end_tolerance_seconds(seconds: float) -> float:
    """Number of seconds by which a segment of this length may exceed its file, because times in tables are rounded.

    One that asks for much more was cut from another file, or its times are not in seconds.
    """
    return max(1.0, 0.1 * seconds)


def located(folder: Path, name: str) -> Path:
    """A path in a file of toolkits that start in the current folder: relative to `folder`, else to that one."""
    beside = folder / name
    return Path(name) if not os.path.exists(beside) and os.path.exists(name) else beside
