"""Decoding of audio files to mono float32 at one sample rate, whole or in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from slimvox.audio.av_file import UNKNOWN_FRAMES
from slimvox.audio.container import (
    LIBRARY_ERRORS,
    SequentialFile,
    UnreadableAudioError,
    explained,
    open_audio,
    raise_lost_error,
)
from slimvox.audio.recordings import AudioFile
from slimvox.audio.sources import SkipReason
from slimvox.structures.anatomy import SAMPLE_RATE_HZ
from slimvox.util.errors import SlimvoxError

__all__ = [
    "AudioFormat",
    "FloatArray",
    "SkipReason",
    "UnreadableAudioError",
    "iter_audio_blocks",
    "measure",
    "read_audio",
]

FloatArray = npt.NDArray[np.float32]

_FRAMES_PER_READ = 1 << 17
_SAMPLES_PER_READ = 1 << 20
"""Samples of all channels together."""
_MISSING_SECONDS_ALLOWED = 0.1
"""Maximum time by which decoding may end before the length in the header (codec delay, rounding)."""


def read_audio(
    path: str | AudioFile,
    *,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
    offset_seconds: float = 0.0,
    seconds: float | None = None,
    channel: int | None = None,
) -> FloatArray:
    """Decode a file, or `seconds` of it from `offset_seconds` onwards, to mono at `sample_rate_hz`.

    Mono is the mean of the channels, or `channel` alone, counted from 0.

    Only the requested part is read; if the file ends earlier, the existing part is returned. Near the end of Ogg Vorbis
    files libsndfile is up to 10 ms off (libsndfile issue 885); elsewhere the position is exact.

    Returns:
        Waveform (samples,) in float32, full scale at 1; not clipped.

    Raises:
        UnreadableAudioError: the file is missing, empty, not audio, not a regular file, damaged, ends before its
            header says, has no such channel, or holds samples that are not finite.
    """
    blocks = list(_resampled(_file(path), sample_rate_hz, offset_seconds, seconds, channel))
    return np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)


def iter_audio_blocks(
    path: str | AudioFile,
    *,
    block_seconds: float,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
    offset_seconds: float = 0.0,
    seconds: float | None = None,
    channel: int | None = None,
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
    return _rechunked(
        _resampled(_file(path), sample_rate_hz, offset_seconds, seconds, channel), block_samples
    )


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """Facts from the header of an audio file."""

    seconds: float
    rate_hz: int
    channels: int


def measure(path: AudioFile) -> AudioFormat:
    """Read the format of a file from its header; a stream whose header gives no length is decoded to its end.

    Raises:
        UnreadableAudioError: the file is missing, empty, or not audio.
    """
    with _opened(path) as file:
        frames = int(file.frames)
        if frames >= UNKNOWN_FRAMES:
            frames = sum(len(block) for block in _mono_blocks(file, path, None))
        return AudioFormat(frames / float(file.samplerate), int(file.samplerate), int(file.channels))


def channel_fault(channels: int, channel: int | None) -> str | None:
    """Detail of the error for a file without a channel, counted from 0; None if it has the channel."""
    if channel is None or 0 <= channel < channels:
        return None
    have = "one channel" if channels == 1 else f"{channels} channels"
    return f"it has {have}, counted from 0, and so no channel {channel}"


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
    path: AudioFile, rate_hz: int, offset_seconds: float, seconds: float | None, channel: int | None
) -> Iterator[FloatArray]:
    with _opened(path) as file:
        _check_channel(file, path, channel)
        source_hz = int(file.samplerate)
        frames = None if seconds is None else round(seconds * source_hz)
        blocks = _mono_blocks(file, path, frames, skip=round(offset_seconds * source_hz), channel=channel)
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
        with open_audio(path) as file:
            try:
                yield file
            finally:
                raise_lost_error(file)
    except LIBRARY_ERRORS as error:
        raise explained(path, error) from error


def _check_channel(file: soundfile.SoundFile, path: AudioFile, channel: int | None) -> None:
    if (detail := channel_fault(file.channels, channel)) is not None:
        raise UnreadableAudioError(path, "no such channel", detail)


def _mono_blocks(
    file: soundfile.SoundFile,
    path: AudioFile,
    frames: int | None,
    *,
    skip: int = 0,
    channel: int | None = None,
) -> Iterator[FloatArray]:
    """Read one channel or the mean of all: `frames` frames, or all up to the end, after skipping `skip`."""
    if skip > 0:
        try:
            # Seeking past the end is an error in libsndfile; there is nothing left to read.
            if skip >= file.frames:
                return
            if isinstance(file, SequentialFile):
                raise OSError("no seeking")
            file.seek(skip)
        except LIBRARY_ERRORS:
            yield from _sequential_blocks(path, frames, skip, channel)
            return
    most = max(1, min(_FRAMES_PER_READ, _SAMPLES_PER_READ // file.channels))
    reached, promised = skip, int(file.frames)
    while frames is None or frames > 0:
        count = most if frames is None else min(frames, most)
        block = file.read(count, dtype="float32", always_2d=True)
        mono: FloatArray = (
            block[:, channel or 0]
            if block.shape[1] == 1 or channel is not None
            else block.mean(axis=1, dtype=np.float32)
        )
        if not np.isfinite(mono).all():
            raise UnreadableAudioError(path, "unreadable", "it holds samples that are NaN or infinite")
        if len(mono):
            yield np.ascontiguousarray(mono)
        reached += len(mono)
        if len(mono) < count:
            allowed = round(_MISSING_SECONDS_ALLOWED * file.samplerate)
            if reached + allowed < promised < UNKNOWN_FRAMES:
                have, want = (frame / file.samplerate for frame in (reached, promised))
                detail = f"it ends after {have:.2f} s, but its header promises {want:.2f} s"
                raise UnreadableAudioError(path, "truncated", detail)
            return
        if frames is not None:
            frames -= len(mono)


def _sequential_blocks(
    path: AudioFile, frames: int | None, skip: int, channel: int | None
) -> Iterator[FloatArray]:
    """Read the same as `_mono_blocks` without seeking: skipped frames are decoded too."""
    with _opened(path) as file:
        whole = None if frames is None else skip + frames
        for block in _mono_blocks(file, path, whole, channel=channel):
            if skip < len(block):
                yield block[skip:]
            skip = max(0, skip - len(block))
