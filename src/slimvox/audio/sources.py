"""What counts as audio, and how a stretch of it is named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slimvox.audio.dataset_recording import DatasetRecording
from slimvox.errors import SlimvoxError

AUDIO_EXTENSIONS = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3"),
    *(".aif", ".aiff", ".aifc", ".au", ".snd", ".w64", ".caf", ".sph"),
)
"""What is taken for audio in a folder: the formats that libsndfile decodes."""


AudioFile = Path | DatasetRecording
"""Where audio is: in a file of its own, or in a row of a data set."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioSource:
    """One stretch of one audio file, as named by the user; nothing about it was checked yet."""

    path: AudioFile
    offset_seconds: float = 0.0
    """Where in the file it starts."""
    seconds: float | None = None
    """How long it is; None means to the end of the file."""


def read_text(path: Path) -> str:
    """Read the text of a list or manifest, a byte-order mark left out.

    Raises:
        SlimvoxError: the file cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SlimvoxError(f"`{path}` cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise SlimvoxError(f"`{path}` must be UTF-8 text, but its byte {error.start} is not.") from error
