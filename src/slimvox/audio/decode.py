"""Any audio file to mono float32 at one rate, whole or in blocks."""

# os.path answers False where Path methods raise (a folder without permission, an overlong name).

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from slimvox.anatomy import SAMPLE_RATE_HZ
from slimvox.audio.sources import AudioFile
from slimvox.errors import SlimvoxError

FloatArray = npt.NDArray[np.float32]

SkipReason = Literal["missing", "empty", "unreadable", "too short", "truncated", "silent", "silent part"]

_FRAMES_PER_READ = 1 << 17
# soundfile raises its own RuntimeErrors; TypeError is its answer to a headerless `.raw` file.
_LIBRARY_ERRORS = (RuntimeError, OSError, ValueError, TypeError)


class UnreadableAudioError(SlimvoxError):
    """An audio file that gives no samples."""

    def __init__(self, path: AudioFile, reason: SkipReason, detail: str) -> None:
        super().__init__(f"`{path}` cannot be read as audio: {detail}.")
        self.path = path
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[UnreadableAudioError], tuple[AudioFile, SkipReason, str]]:
        return type(self), (self.path, self.reason, self.detail)


def read_audio(
    path: str | AudioFile,
    *,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
    offset_seconds: float = 0.0,
    seconds: float | None = None,
) -> FloatArray:
    """Decode a file, or `seconds` of it from `offset_seconds` on, to its channels' mean at `sample_rate_hz`.

    Only the part asked for is read; where the file ends before it does, what there is is returned. Near the end
    of Ogg Vorbis files libsndfile lands up to 10 ms off (libsndfile issue 885); elsewhere the place is exact.

    Returns:
        Waveform (samples,) in float32, full scale at 1; not clipped.

    Raises:
        UnreadableAudioError: the file is missing, empty, not audio, damaged, or holds samples that are not
            finite.
    """
    blocks = list(_resampled(_file(path), sample_rate_hz, offset_seconds, seconds))
    return np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)


def iter_audio_blocks(
    path: str | AudioFile,
    *,
    block_seconds: float,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
    offset_seconds: float = 0.0,
    seconds: float | None = None,
) -> Iterator[FloatArray]:
    """`read_audio` in consecutive blocks of `block_seconds`: a file of hours is never in memory whole.

    Yields:
        Waveforms (samples,); all but the last have `block_seconds` x `sample_rate_hz` samples. Joined, they
        are exactly what `read_audio` returns.

    Raises:
        SlimvoxError: `block_seconds` shorter than one sample.
        UnreadableAudioError: as `read_audio`; for damage within the file, only when that place is reached.
    """
    block_samples = round(block_seconds * sample_rate_hz)
    if block_samples < 1:
        raise SlimvoxError(f"`block_seconds` must be at least one sample, but is {block_seconds} instead.")
    return _rechunked(_resampled(_file(path), sample_rate_hz, offset_seconds, seconds), block_samples)


def measure_seconds(path: AudioFile) -> float:
    """Read the duration of a file from its header; a stream whose header does not say is decoded to its end.

    Raises:
        UnreadableAudioError: the file is missing, empty or not audio.
    """
    with _opened(path) as file:
        frames = int(file.frames)
        # libsndfile's word for "unknown" is the largest count there is.
        if frames >= 1 << 62:
            frames = sum(len(block) for block in _mono_blocks(file, path, None))
        return frames / float(file.samplerate)


def _file(path: str | AudioFile) -> AudioFile:
    return Path(path) if isinstance(path, str) else path


def _rechunked(blocks: Iterator[FloatArray], size: int) -> Iterator[FloatArray]:
    waiting: list[FloatArray] = []
    count = 0
    for block in blocks:
        waiting.append(block)
        count += len(block)
        if count >= size:
            joined = np.concatenate(waiting)
            whole = count - count % size
            for start in range(0, whole, size):
                yield joined[start : start + size].copy()
            waiting, count = [joined[whole:]], count - whole
    if count:
        yield np.concatenate(waiting)


def _resampled(
    path: AudioFile, rate_hz: int, offset_seconds: float, seconds: float | None
) -> Iterator[FloatArray]:
    with _opened(path) as file:
        source_hz = int(file.samplerate)
        frames = None if seconds is None else round(seconds * source_hz)
        blocks = _mono_blocks(file, path, frames, skip=round(offset_seconds * source_hz))
        if source_hz == rate_hz:
            yield from blocks
            return
        stream = soxr.ResampleStream(source_hz, rate_hz, 1, dtype="float32", quality="HQ")
        for block in blocks:
            yield stream.resample_chunk(block)
        yield stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True)


@contextmanager
def _opened(path: AudioFile) -> Iterator[soundfile.SoundFile]:
    """Open a file; every error of the libraries inside the block becomes an `UnreadableAudioError`."""
    try:
        with soundfile.SoundFile(path if isinstance(path, Path) else path.open()) as file:
            yield file
    except _LIBRARY_ERRORS as error:
        raise _explained(path, error) from error


def _mono_blocks(
    file: soundfile.SoundFile, path: AudioFile, frames: int | None, *, skip: int = 0
) -> Iterator[FloatArray]:
    """Read the mean of the channels: `skip` frames left out, then `frames` of them or to the end."""
    if skip > 0:
        try:
            # Seeking past the end is an error of its own, and means that there is nothing left to read.
            if skip >= file.frames:
                return
            file.seek(skip)
        except _LIBRARY_ERRORS:
            with _opened(path) as again:
                for block in _mono_blocks(again, path, None if frames is None else skip + frames):
                    if skip < len(block):
                        yield block[skip:]
                    skip = max(0, skip - len(block))
            return
    while frames is None or frames > 0:
        wanted = _FRAMES_PER_READ if frames is None else min(frames, _FRAMES_PER_READ)
        block = file.read(wanted, dtype="float32", always_2d=True)
        mono: FloatArray = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)
        if not np.isfinite(mono).all():
            raise UnreadableAudioError(path, "unreadable", "it holds samples that are NaN or infinite")
        if len(mono):
            yield np.ascontiguousarray(mono)
        if len(mono) < wanted:
            return
        if frames is not None:
            frames -= len(mono)


def _explained(path: AudioFile, error: Exception) -> UnreadableAudioError:
    wrong = _wrong_with_file(path) if isinstance(path, Path) else None
    if wrong is not None:
        return UnreadableAudioError(path, *wrong)
    is_empty_row = isinstance(error, FileNotFoundError) and not isinstance(path, Path)
    detail = str(getattr(error, "error_string", "") or error).strip().rstrip(".") or "the decoder gave up"
    return UnreadableAudioError(path, "empty" if is_empty_row else "unreadable", detail)


def _wrong_with_file(path: Path) -> tuple[SkipReason, str] | None:
    """What is wrong with a file, whatever is in it; None where it is the content."""
    if not os.path.exists(path):
        return "missing", "it does not exist"
    if not os.path.isfile(path):
        return "unreadable", "it is not a file"
    if os.path.getsize(path) == 0:
        return "empty", "it has 0 bytes"
    if not os.access(path, os.R_OK):
        return "unreadable", "permission denied"
    return None
