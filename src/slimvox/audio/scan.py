"""Usability and duration of audio, from the files' headers alone."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from slimvox.audio.decode import AudioFormat, UnreadableAudioError, channel_fault, measure
from slimvox.audio.file_columns import FILES_AT_A_TIME, FileColumns
from slimvox.audio.skips import SkipCounter, SkippedFile
from slimvox.audio.sources import AudioClip, AudioSource, SkipReason, end_tolerance_seconds
from slimvox.audio.table import AudioTable, as_table
from slimvox.util.errors import SlimvoxError

SCAN_THREADS = max(8, min(32, 4 * (os.cpu_count() or 1)))
"""Number of files that are open at a time by default."""
_FILES_PER_TASK = 64
_SECONDS_TOLERANCE = 1e-6

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class AudioScan:
    """Result of a scan."""

    clips: AudioTable[AudioClip]
    """The usable audio, in the order of the sources."""
    skipped_files: tuple[SkippedFile, ...]
    """The skipped files and the reasons."""
    sources: npt.NDArray[np.integer]
    """Number of the source that each clip is from (clips,)."""
    named: int
    """Stretches of audio that the sources name, usable or not."""

    @property
    def skipped(self) -> Mapping[str, int]:
        """Number of files left out, by reason."""
        counts: dict[str, int] = {}
        for file in self.skipped_files:
            counts[file.reason] = counts.get(file.reason, 0) + 1
        return counts

    @property
    def clip_seconds(self) -> npt.NDArray[np.float64]:
        """Length of each clip (clips,)."""
        return self.clips.seconds

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
        for first in range(0, len(self.clips), FILES_AT_A_TIME):
            clips = self.clips[first : first + FILES_AT_A_TIME]
            lowest, highest = int(clips.file.min()), int(clips.file.max())
            names = clips.files.encoded_names(lowest, highest + 1)
            columns = (clips.file - lowest, clips.offset_seconds, clips.seconds, clips.channel)
            for file, offset, seconds, channel in zip(*(column.tolist() for column in columns), strict=True):
                suffix = "" if channel < 0 else f"\t{channel}"
                digest.update(names[file].rpartition(b"/")[2])
                digest.update(f"\t{offset:.6f}\t{seconds:.6f}{suffix}\n".encode())
        return digest.hexdigest()


def scan_audio(
    sources: Sequence[AudioSource],
    *,
    min_seconds: float,
    threads: int = SCAN_THREADS,
    on_progress: Progress | None = None,
    skips: SkipCounter | None = None,
) -> AudioScan:
    """Measure `sources` by their headers and keep those of at least `min_seconds`.

    Args:
        sources: audio to measure.
        min_seconds: minimum duration of a stretch of audio.
        threads: number of files that are open at a time.
        on_progress: called repeatedly with the number of measured files and the number of all files.
        skips: counter of the files that are left out; by default a new one for this scan.

    Raises:
        SlimvoxError: if no file is usable; the message counts the files by reason.
    """
    table = as_table(sources)
    for files in measured_files(table.files, threads, on_progress):
        table = replace(table, files=files)
    return usable(table, min_seconds=min_seconds, skips=skips)


def measured_files(
    files: FileColumns, threads: int, on_progress: Progress | None = None, *, at_once: int = 1 << 62
) -> Iterator[FileColumns]:
    """Fill in the columns of files that were not measured yet, yielding them after each `at_once` files."""
    columns = {name: getattr(files, name).copy() for name in ("seconds", "rate_hz", "channels")}
    failures = dict(files.failures)
    left = np.flatnonzero(np.isnan(files.seconds))
    for first in range(0, len(left), at_once):
        chosen = left[first : first + at_once].tolist()
        for done, (index, result) in enumerate(
            zip(chosen, _measured(files, chosen, threads), strict=True), start=first + 1
        ):
            if isinstance(result, UnreadableAudioError):
                failures[index] = result.reason, result.detail
            else:
                columns["seconds"][index] = result.seconds
                columns["rate_hz"][index], columns["channels"][index] = result.rate_hz, result.channels
            if on_progress is not None and (done % _FILES_PER_TASK == 0 or done == len(left)):
                on_progress(done, len(left))
        yield replace(files, failures=failures, **columns)


def usable(
    table: AudioTable[AudioSource],
    *,
    min_seconds: float,
    skips: SkipCounter | None = None,
    sources: npt.NDArray[np.integer] | None = None,
) -> AudioScan:
    """The stretches of a measured table that can be used.

    Args:
        table: table whose files were all measured.
        min_seconds: minimum duration of a stretch.
        skips: counter of the stretches that are left out.
        sources: number of the source that each stretch is from; by default all are from the first.

    Raises:
        SlimvoxError: there are none.
    """
    skips = SkipCounter() if skips is None else skips
    counted_before, named = len(skips.files), len(table)
    sources = np.zeros(len(table), dtype=np.int16) if sources is None else sources
    file_seconds = table.files.seconds[table.file]
    left = file_seconds - table.offset_seconds
    seconds = np.fmin(left, table.seconds)
    # NaN marks a file that cannot be used.
    is_usable = (seconds > 0.0) & (seconds >= min_seconds - _SECONDS_TOLERANCE)
    is_usable &= table.channel < table.files.channels[table.file]
    is_usable &= ~(table.seconds > left + end_tolerance_seconds(table.seconds))
    for index in np.flatnonzero(~is_usable).tolist():
        reason, detail = _fault(table, index, min_seconds)
        path, offset = table.files[int(table.file[index])], float(table.offset_seconds[index])
        skips.add(path, reason, detail, offset_seconds=offset)
    chosen = np.flatnonzero(is_usable)
    if not len(chosen):
        raise SlimvoxError(
            f"None of the {len(table)} audio files can be used: {skips.summary() or 'there are none'}. "
            f"Give readable audio of at least {min_seconds:g} s a file."
        )
    if len(chosen) < len(table):
        table, seconds, sources = table.taken(chosen), seconds[chosen], sources[chosen]
    clips: Any = replace(cast(Any, table), item=AudioClip, files=table.files.places(), seconds=seconds)
    return AudioScan(
        clips=clips,
        skipped_files=skips.files[counted_before:],
        sources=sources,
        named=named,
    )


def _fault(table: AudioTable[AudioSource], index: int, min_seconds: float) -> tuple[SkipReason, str]:
    """Reason and detail for a stretch that cannot be used."""
    file, source = int(table.file[index]), table[index]
    if file in table.files.failures:
        return table.files.failures[file]
    if (detail := channel_fault(int(table.files.channels[file]), source.channel)) is not None:
        return "no such channel", detail
    file_seconds = float(table.files.seconds[file])
    left = file_seconds - source.offset_seconds
    if file_seconds <= 0.0:
        return "empty", "it holds no samples"
    if left <= 0.0:
        return "empty", f"it ends at {file_seconds:.2f} s, before the offset of {source.offset_seconds:.2f} s"
    if source.seconds is not None and source.seconds > left + end_tolerance_seconds(source.seconds):
        end = source.offset_seconds + source.seconds
        return "truncated", f"it ends at {file_seconds:.2f} s, before the end of the stretch at {end:.2f} s"
    seconds = left if source.seconds is None else min(left, source.seconds)
    return "too short", f"{seconds:.2f} s, at least {min_seconds:g} s are needed"


def _measured(
    files: FileColumns, chosen: Sequence[int], threads: int
) -> Iterator[AudioFormat | UnreadableAudioError]:
    """Format of each chosen file, or the reason why it could not be read, in order."""

    def measure_all(chunk: Sequence[int]) -> list[AudioFormat | UnreadableAudioError]:
        return [_measure(files, index) for index in chunk]

    executor = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="slimvox-scan")
    try:
        chunks = [chosen[i : i + _FILES_PER_TASK] for i in range(0, len(chosen), _FILES_PER_TASK)]
        for results in executor.map(measure_all, chunks):
            yield from results
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _measure(files: FileColumns, index: int) -> AudioFormat | UnreadableAudioError:
    try:
        return measure(files[index])
    except UnreadableAudioError as error:
        return error
