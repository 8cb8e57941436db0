"""Waveform of a recording, assembled from clips on a time line."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from slimvox.audio.decode import FloatArray, UnreadableAudioError, measure, read_audio
from slimvox.audio.sources import end_tolerance_seconds
from slimvox.evaluation.channel import through_channel
from slimvox.evaluation.examples import Recording
from slimvox.structures.anatomy import SAMPLE_RATE_HZ

CLIPS_AHEAD = 128
"""Number of recordings that are decoded in advance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Excerpt:
    """A recording, or at most some seconds of it."""

    recording: Recording
    max_seconds: float | None = None
    """Maximum length, to which longer recordings are cut at a place that depends only on their id; None for no cut."""

    @property
    def id(self) -> str:
        """Id of the recording."""
        return self.recording.id


def read_waveform(excerpt: Excerpt) -> FloatArray:
    """Decode and sum the clips of a recording, and send them through its channel if it has one.

    Returns:
        (samples,) at 16 kHz; as long as its last clip's end, empty if its clips are.

    Raises:
        UnreadableAudioError: if a file of it is missing, damaged, or much shorter than requested.
    """
    waveform = _summed(excerpt.recording)
    if excerpt.recording.channel is not None:
        waveform = through_channel(waveform, excerpt.recording.channel)
    return _cut(waveform, excerpt)


def read_ahead(
    many: Iterable[Sequence[Excerpt]], workers: int
) -> Generator[dict[str, FloatArray | UnreadableAudioError], None, None]:
    """Waveforms of lists of recordings by id, or the reason for a missing one; decoded ahead in `workers` threads."""
    waiting: deque[dict[str, Future[FloatArray | UnreadableAudioError]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="slimvox-decode") as pool:
        try:
            for excerpts in many:
                waiting.append({excerpt.id: pool.submit(_read, excerpt) for excerpt in excerpts})
                while sum(map(len, waiting)) > CLIPS_AHEAD or len(waiting) > CLIPS_AHEAD:
                    yield {id: each.result() for id, each in waiting.popleft().items()}
            while waiting:
                yield {id: each.result() for id, each in waiting.popleft().items()}
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def measure_excerpts(excerpts: Sequence[Excerpt], workers: int) -> Mapping[str, float]:
    """Seconds of recordings by id, from the headers of their files; 0 for those that cannot be read."""
    with ThreadPoolExecutor(workers, thread_name_prefix="slimvox-measure") as pool:
        seconds = pool.map(_measured, excerpts)
        return {excerpt.id: each for excerpt, each in zip(excerpts, seconds, strict=True)}


def _read(excerpt: Excerpt) -> FloatArray | UnreadableAudioError:
    try:
        return read_waveform(excerpt)
    except UnreadableAudioError as error:
        return error


def _measured(excerpt: Excerpt) -> float:
    try:
        seconds = max(
            clip.at_seconds
            - clip.start_seconds
            + (measure(clip.path).seconds if clip.end_seconds is None else clip.end_seconds)
            for clip in excerpt.recording.clips
        )
    except UnreadableAudioError:
        return 0.0
    return seconds if excerpt.max_seconds is None else min(seconds, excerpt.max_seconds)


def _summed(recording: Recording) -> FloatArray:
    placed: list[tuple[int, FloatArray]] = []
    for clip in recording.clips:
        seconds = None if clip.end_seconds is None else clip.end_seconds - clip.start_seconds
        samples = read_audio(
            clip.path, offset_seconds=clip.start_seconds, seconds=seconds, channel=clip.file_channel
        )
        have = len(samples) / SAMPLE_RATE_HZ
        if seconds is not None and have + end_tolerance_seconds(seconds) < seconds:
            detail = f"it ends after {have:.2f} s of the {seconds:.2f} s that were asked for"
            raise UnreadableAudioError(clip.path, "truncated", detail)
        placed.append((round(clip.at_seconds * SAMPLE_RATE_HZ), samples * np.float32(clip.gain)))
    if len(placed) == 1 and placed[0][0] == 0:
        return placed[0][1]
    waveform = np.zeros(max((start + len(samples) for start, samples in placed), default=0), dtype=np.float32)
    for start, samples in placed:
        waveform[start : start + len(samples)] += samples
    return waveform


def _cut(waveform: FloatArray, excerpt: Excerpt) -> FloatArray:
    if excerpt.max_seconds is None:
        return waveform
    samples = round(excerpt.max_seconds * SAMPLE_RATE_HZ)
    spare = len(waveform) - samples
    if spare <= 0:
        return waveform
    start = int.from_bytes(hashlib.sha256(excerpt.id.encode()).digest()[:4], "big") % (spare + 1)
    return waveform[start : start + samples]
