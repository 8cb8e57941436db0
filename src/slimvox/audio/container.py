"""Opening of audio for decoding, with its true length: headers that give another one are corrected or refused."""

# os.path answers False where Path methods raise (a folder without permission, an overlong name).

from __future__ import annotations

import io
import os
import stat
import struct
import sys
from collections.abc import Callable
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import soundfile

from slimvox.audio.av_file import UNKNOWN_FRAMES, AVFile, has_av
from slimvox.audio.mp3 import SplicedFile, length_frame
from slimvox.audio.recordings import AudioFile, Recording
from slimvox.audio.sources import UNSUPPORTED_EXTENSIONS, SkipReason
from slimvox.util.errors import SlimvoxError

_T = TypeVar("_T")

SAMPLE_RATES_HZ = (1_000, 1_000_000)
"""Range of valid sample rates; others are treated as damage, since resampling them could take unlimited memory."""
# fmt: off
_SAMPLE_BYTES = {
    "PCM_U8": 1, "PCM_S8": 1, "ULAW": 1, "ALAW": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8,
}
# fmt: on
_BYTES_ALLOWED_BEHIND = 8192
"""Number of bytes besides the samples that are ignored, such as headers and titles."""
_SIZE_IN_DS64 = 0xFFFF_FFFF
_OGG_HEADER = struct.Struct("<4sxB20xB")
"""Mark, flags and number of segments of a page."""
_OGG_BEGINNING = 2

# soundfile raises its own RuntimeErrors; TypeError is its answer to a headerless `.raw` file.
LIBRARY_ERRORS = (RuntimeError, OSError, ValueError, TypeError)


class UnreadableAudioError(SlimvoxError):
    """An audio file that gives no samples."""

    def __init__(self, path: AudioFile, reason: SkipReason, detail: str) -> None:
        super().__init__(f"`{path}` cannot be read as audio: {detail}.")
        self.path = path
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[UnreadableAudioError], tuple[AudioFile, SkipReason, str]]:
        return type(self), (self.path, self.reason, self.detail)


class SequentialFile(soundfile.SoundFile):  # type: ignore[misc]
    """A file whose header does not give its length: it is read from beginning to end, without seeking."""

    def seekable(self) -> bool:
        """Always False: `soundfile` seeks after each read, which fails at an unknown end."""
        return False


class GuardedContent:
    """A recording read by libsndfile; it keeps errors that would be lost in the callbacks of libsndfile."""

    def __init__(self, content: BinaryIO) -> None:
        self._content = content
        self.error: Exception | None = None

    def _guarded(self, call: Callable[..., int], *arguments: Any) -> int:
        try:
            return 0 if self.error is not None else call(*arguments)
        except Exception as error:
            self.error = error
            return 0

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; nothing is read after an error."""
        return self._guarded(self._content.readinto, buffer)  # type: ignore[attr-defined]

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        return self._guarded(self._content.seek, offset, whence)

    def tell(self) -> int:
        """The position."""
        return self._guarded(self._content.tell)

    def read(self, count: int) -> bytes:
        """Never called, because there is `readinto`."""
        raise NotImplementedError


def raise_lost_error(file: soundfile.SoundFile) -> None:
    """Raise the error that occurred while reading the content of `file`, if there was one."""
    error = getattr(file.name, "error", None)
    if error is not None:
        raise error


def _opened(path: AudioFile, kind: type[soundfile.SoundFile] = soundfile.SoundFile) -> soundfile.SoundFile:
    content = _name_or_content(path)
    try:
        return kind(content)
    except LIBRARY_ERRORS:
        if isinstance(content, GuardedContent) and content.error is not None:
            raise content.error from None
        if not os.fspath(path).lower().endswith(UNSUPPORTED_EXTENSIONS) or not has_av():
            raise
    return AVFile(str(path) if isinstance(path, Path) else path.open())


def open_audio(path: AudioFile) -> soundfile.SoundFile:
    """Open an audio file or a recording of a data set.

    The number of frames is correct as far as this is known without decoding. A file whose header does not
    give it is a `SequentialFile`.

    Raises:
        UnreadableAudioError: the file is not a regular file, has an absurd sample rate, or holds more samples than
            its header promises and the decoder would read.
        RuntimeError, OSError, ValueError, TypeError: as `soundfile` and the file system give them.
    """
    status = _checked_status(path) if isinstance(path, Path) else None
    file = _opened(path)
    try:
        if not SAMPLE_RATES_HZ[0] <= file.samplerate <= SAMPLE_RATES_HZ[1]:
            low, high = SAMPLE_RATES_HZ
            detail = f"its header says {file.samplerate} Hz, where {low} to {high} Hz are possible"
            raise UnreadableAudioError(path, "unreadable", detail)
        if isinstance(file, AVFile):
            return file
        if file.frames >= UNKNOWN_FRAMES:
            file.close()
            return _opened(path, SequentialFile)
        if file.format == "MP3":
            splice = _walked(path, status, length_frame)
            if splice is not None:
                file.close()
                return soundfile.SoundFile(GuardedContent(SplicedFile(splice[0], _content(path), splice[1])))  # type: ignore[arg-type]
        elif file.format == "OGG":
            if _walked(path, status, is_chained_ogg):
                detail = (
                    "it holds several recordings in a row (a chained Ogg stream), of which only the first would be "
                    "read; write them to one stream, for example with ffmpeg"
                )
                raise UnreadableAudioError(path, "truncated", detail)
        elif file.format in ("WAV", "WAVEX", "RF64", "AU"):
            _refuse_leftover(path, file, status)
    except BaseException:
        file.close()
        raise
    return file


def explained(path: AudioFile, error: Exception) -> UnreadableAudioError:
    """Turn an error of the libraries into one that names the file and its problem."""
    wrong = _wrong_with_file(path) if isinstance(path, Path) else None
    if wrong is not None:
        return UnreadableAudioError(path, *wrong)
    if os.fspath(path).lower().endswith(UNSUPPORTED_EXTENSIONS):
        return UnreadableAudioError(
            path,
            "unsupported format",
            "libsndfile does not decode it; convert it to flac, wav or opus first"
            + ("" if has_av() else ', or install what decodes it: pip install "slimvox[av]"'),
        )
    detail = str(getattr(error, "error_string", "") or error).strip().rstrip(".") or "the decoder gave up"
    if isinstance(error, FileNotFoundError) and isinstance(path, Recording):
        return UnreadableAudioError(path, path.absence, detail)
    return UnreadableAudioError(path, "unreadable", detail)


def kind_of_file(mode: int) -> str:
    """Name of the kind of a file that is not regular, from the mode in `os.stat`."""
    kinds = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return next((name for test, name in kinds if test(mode)), "not a file")


def _checked_status(path: Path) -> os.stat_result:
    """Status of a regular file; other files are refused, because opening a pipe would wait for its writer."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableAudioError(
            path, "unreadable", f"it is not a file, but {kind_of_file(status.st_mode)}"
        )
    return status


def _name_or_content(path: AudioFile) -> str | bytes | GuardedContent:
    if isinstance(path, Recording):
        return GuardedContent(path.open())
    # Compared as bytes, because a name need not be UTF-8.
    return str(path) if sys.platform == "win32" else os.fsencode(path)


def _content(path: AudioFile) -> BinaryIO:
    return path.open() if isinstance(path, Recording) else open(path, "rb")


def _walked(path: AudioFile, status: os.stat_result | None, walk: Callable[[BinaryIO], _T]) -> _T:
    """Walk through a file, with a cached result, since many crops are read from a long file."""
    if status is not None:
        return _walked_file(walk, os.fspath(path), status.st_size, status.st_mtime_ns)  # type: ignore[return-value]
    with closing(_content(path)) as content:
        return walk(content)


@lru_cache(maxsize=1024)
def _walked_file(walk: Callable[[BinaryIO], object], path: str, size: int, modified_ns: int) -> object:
    with open(path, "rb") as content:
        return walk(content)


def is_chained_ogg(content: BinaryIO) -> bool:
    """True if an Ogg file holds several recordings in a row, of which the decoder reads only the first."""
    at, has_begun = 0, False
    while True:
        content.seek(at)
        header = content.read(_OGG_HEADER.size)
        if len(header) < _OGG_HEADER.size:
            return False
        mark, flags, segments = _OGG_HEADER.unpack(header)
        if mark != b"OggS":
            return False
        # The first pages of all streams that are played together come before any other page.
        if flags & _OGG_BEGINNING and has_begun:
            return True
        has_begun = has_begun or not flags & _OGG_BEGINNING
        at += _OGG_HEADER.size + segments + sum(content.read(segments))


def _refuse_leftover(path: AudioFile, file: soundfile.SoundFile, status: os.stat_result | None) -> None:
    """Raise UnreadableAudioError if much unknown content follows the samples that the header promises."""
    sample_bytes = _SAMPLE_BYTES.get(file.subtype)
    if sample_bytes is None:
        return
    promised = int(file.frames) * file.channels * sample_bytes
    if status is not None and status.st_size - promised <= _BYTES_ALLOWED_BEHIND:
        return
    with closing(_content(path)) as content:
        size = content.seek(0, io.SEEK_END)
        if size - promised <= _BYTES_ALLOWED_BEHIND:
            return
        if file.format != "AU" and _chunks_fill(content, size):
            return
    detail = (
        f"its header promises {file.frames / file.samplerate:.2f} s, but {size - promised} further bytes follow; "
        "write it anew with a right header, for example with ffmpeg"
    )
    raise UnreadableAudioError(path, "truncated", detail)


def _chunks_fill(content: BinaryIO, size: int) -> bool:
    """True if a RIFF file consists of consecutive chunks without gaps."""
    at, data_bytes = 12, 0
    while at + 8 <= size:
        content.seek(at)
        name, length = struct.unpack("<4sI", content.read(8))
        if name == b"ds64":
            data_bytes = struct.unpack("<QQ", content.read(16))[1]
        elif name == b"data" and length == _SIZE_IN_DS64:
            length = data_bytes
        if not all(32 <= byte < 127 for byte in name) or at + 8 + length > size:
            return _only_zeros(content, at)
        at += 8 + length
        # An odd chunk is padded; some programs forget it.
        content.seek(at)
        at += length % 2 and content.read(1) == b"\0"
    return True


def _only_zeros(content: BinaryIO, at: int) -> bool:
    content.seek(at)
    while window := content.read(1 << 20):
        if window.strip(b"\0"):
            return False
    return True


def _wrong_with_file(path: Path) -> tuple[SkipReason, str] | None:
    """A problem of a file that does not concern its content; None if there is none."""
    if not os.path.exists(path):
        return "missing", "it does not exist"
    if not os.path.isfile(path):
        return "unreadable", f"it is not a file, but {kind_of_file(os.stat(path).st_mode)}"
    if os.path.getsize(path) == 0:
        return "empty", "it has 0 bytes"
    if not os.access(path, os.R_OK):
        return "unreadable", "permission denied"
    return None
