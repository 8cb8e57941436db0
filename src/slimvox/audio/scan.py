"""Usability and duration of audio, from the files' headers alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from slimvox.audio.decode import SkipReason, UnreadableAudioError, measure_seconds
from slimvox.audio.skips import SkipCounter, SkippedFile
from slimvox.audio.sources import AudioFile, AudioSource, end_tolerance_seconds
from slimvox.util.errors import SlimvoxError

_SOURCES_PER_TASK = 64
_SECONDS_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioClip:
    """A stretch of an audio file whose length is known."""

    path: AudioFile
    offset_seconds: float
    seconds: float
    channel: int | None = None
    """Counted from 0; None for the mean of all."""


@dataclass(frozen=True, kw_only=True)
class AudioScan:
    """Result of a scan."""

    clips: tuple[AudioClip, ...]
    """The usable audio, in the order of the sources."""
    skipped_files: tuple[SkippedFile, ...]
    """Number of skipped files, by reason."""

    @property
    def skipped(self) -> Mapping[str, int]:
        """Number of files left out, by reason."""
        counts: dict[str, int] = {}
        for file in self.skipped_files:
            counts[file.reason] = counts.get(file.reason, 0) + 1
        return counts

    @cached_property
    def clip_seconds(self) -> npt.NDArray[np.float64]:
        """Length of each clip (clips,)."""
        return np.fromiter((clip.seconds for clip in self.clips), dtype=np.float64, count=len(self.clips))

    @property
    def total_seconds(self) -> float:
        """Length of all clips together."""
        return float(self.clip_seconds.sum())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the clips' file names, offsets, lengths and channels, in order.

        Two scans with the same fingerprint give the same batches. Folders are left out: the audio may have
        moved.
        """
        digest = hashlib.sha256()
        for clip in self.clips:
            channel = "" if clip.channel is None else f"\t{clip.channel}"
            line = f"{clip.path.name}\t{clip.offset_seconds:.6f}\t{clip.seconds:.6f}{channel}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def scan_audio(
    sources: Sequence[AudioSource],
    *,
    min_seconds: float,
    threads: int = 8,
    on_progress: Callable[[int, int], None] | None = None,
    skips: SkipCounter | None = None,
) -> AudioScan:
    """Measure `sources` by their headers and keep those of at least `min_seconds`.

    Args:
        sources: what to measure.
        min_seconds: how long a stretch of audio must be.
        threads: how many files are open at a time.
        on_progress: called now and then with the number of sources measured and the number of all.
        skips: where what is left out is counted; by default a counter of this scan alone.

    Raises:
        SlimvoxError: nothing usable is left; the message counts the files by reason.
    """
    clips: list[AudioClip] = []
    skips = SkipCounter() if skips is None else skips
    counted_before = len(skips.files)
    for done, (source, result) in enumerate(_measured(sources, threads), start=1):
        if isinstance(result, UnreadableAudioError):
            skips.add(source.path, result.reason, result.detail, offset_seconds=source.offset_seconds)
        else:
            _sort(source, result, min_seconds, clips, skips)
        if on_progress is not None and (done % _SOURCES_PER_TASK == 0 or done == len(sources)):
            on_progress(done, len(sources))
    if not clips:
        raise SlimvoxError(
            f"None of the {len(sources)} audio files can be used: {skips.summary() or 'there are none'}. "
            f"Give readable audio of at least {min_seconds:g} s a file."
        )
    return AudioScan(clips=tuple(clips), skipped_files=skips.files[counted_before:])


def _sort(
    source: AudioSource, file_seconds: float, min_seconds: float, clips: list[AudioClip], skips: SkipCounter
) -> None:
    """Put one measured source where it belongs."""

    def skip(reason: SkipReason, detail: str) -> None:
        skips.add(source.path, reason, detail, offset_seconds=source.offset_seconds)

    left = file_seconds - source.offset_seconds
    seconds = left if source.seconds is None else min(left, source.seconds)
    if file_seconds <= 0.0:
        skip("empty", "it holds no samples")
    elif left <= 0.0:
        skip("empty", f"it ends at {file_seconds:.2f} s, before the offset of {source.offset_seconds:.2f} s")
    elif source.seconds is not None and source.seconds > left + end_tolerance_seconds(source.seconds):
        end = source.offset_seconds + source.seconds
        skip("truncated", f"it ends at {file_seconds:.2f} s, before the end of the stretch at {end:.2f} s")
    elif seconds <= 0.0 or seconds < min_seconds - _SECONDS_TOLERANCE:
        skip("too short", f"{seconds:.2f} s, at least {min_seconds:g} s are needed")
    else:
        clips.append(
            AudioClip(
                path=source.path,
                offset_seconds=source.offset_seconds,
                seconds=seconds,
                channel=source.channel,
            )
        )


def _measured(
    sources: Sequence[AudioSource], threads: int
) -> Iterator[tuple[AudioSource, float | UnreadableAudioError]]:
    """Each source with its file's seconds, or with what is wrong with it; in order."""

    def measure(chunk: Sequence[AudioSource]) -> list[float | UnreadableAudioError]:
        return [_measure(source) for source in chunk]

    executor = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="slimvox-scan")
    try:
        chunks = [sources[i : i + _SOURCES_PER_TASK] for i in range(0, len(sources), _SOURCES_PER_TASK)]
        for chunk, results in zip(chunks, executor.map(measure, chunks), strict=True):
            yield from zip(chunk, results, strict=True)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _measure(source: AudioSource) -> float | UnreadableAudioError:
    try:
        return measure_seconds(source.path, channel=source.channel)
    except UnreadableAudioError as error:
        return error
