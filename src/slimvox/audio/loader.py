"""Batches of waveforms, decoded ahead of their use in background threads."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import torch
from torch import Tensor

from slimvox.audio.batches import BatchPlan, CropSpec
from slimvox.audio.cache import ClipCache
from slimvox.audio.crops import CropReader
from slimvox.audio.decode import FloatArray
from slimvox.audio.skips import SkipCounter
from slimvox.audio.sources import AudioClip
from slimvox.util.errors import SlimvoxError

logger = logging.getLogger("slimvox.audio")

REPLACEMENTS_PER_CROP = 8
"""Number of other crops to try for one that cannot be used, before the batch is formed without it."""
SECONDS_PER_WARNING = 60.0
WAITING_SHARE = 0.05
"""Share of a minute that the model may wait for audio without a warning."""
SUBSTITUTES_PER_BATCH = 32
"""Number of other batches to try for an unusable one, before the run fails."""


@dataclass(frozen=True, kw_only=True)
class AudioBatch:
    """The part of a step's batch that one process has, without padding."""

    waveforms: Tensor
    """(clips, samples) float32, full scale at 1, as recorded (not normalised): the clips of this process, possibly
    none."""
    seconds: float
    """Seconds of audio in it: clips x samples / rate."""
    step: int
    """Step that the batch is for."""
    slots: tuple[int, ...]
    """Place of each clip in the batch of all processes together, ascending."""
    planned: int
    """Number of clips of all processes together, including clips that cannot be used."""


class AudioBatches:
    """The endless batches of a plan from step `start` onwards.

    Batch n does not depend on where the iteration began, on cached clips, or on the number of workers. A clip
    that cannot be used is counted in `skips` and replaced by another, drawn by the plan.

    Use it in a ``with`` block, or `close` it: that stops the threads.

    Args:
        clips: clips to which the indices of the plan refer.
        plan: crops of each batch.
        start: first step; the number of steps already done, when resuming.
        process: number of this process among `processes`: the clips of each batch are distributed among them.
        workers: number of clips that are decoded at a time; by default one for each core of this process.
        prefetch: number of batches that are decoded in advance.
        cache_bytes: memory for decoded clips; 512 MiB hold 2.3 hours.
        pad_to_seconds: length to which shorter crops are padded with silence; 0 for none.
        skips: counter of unusable files.

    Raises:
        SlimvoxError: if settings are out of range or, while iterating, many batches contain no usable audio.
    """

    def __init__(
        self,
        clips: Sequence[AudioClip],
        plan: BatchPlan,
        *,
        start: int = 0,
        process: int = 0,
        processes: int = 1,
        workers: int | None = None,
        prefetch: int = 4,
        cache_bytes: int = 512 * 2**20,
        pad_to_seconds: float = 0.0,
        skips: SkipCounter | None = None,
    ) -> None:
        workers = default_workers() if workers is None else workers
        _check(start=start, process=process, processes=processes, workers=workers, prefetch=prefetch)
        self.skips = SkipCounter() if skips is None else skips
        self._plan = plan
        self._process, self._processes = process, processes
        self._prefetch = prefetch
        self._least_samples = round(pad_to_seconds * plan.sample_rate_hz)
        self._next_step = start
        self._reader = CropReader(
            clips, sample_rate_hz=plan.sample_rate_hz, cache=ClipCache(cache_bytes), skips=self.skips
        )
        self._stopped = threading.Event()
        self._waiting: deque[Future[AudioBatch]] = deque()
        self._executor = ThreadPoolExecutor(max_workers=prefetch, thread_name_prefix="slimvox-batch")
        self._workers = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="slimvox-audio")
        self.waits = Waits(workers)

    def __iter__(self) -> AudioBatches:
        return self

    def __next__(self) -> AudioBatch:
        if self._stopped.is_set():
            raise StopIteration
        try:
            while len(self._waiting) < self._prefetch:
                self._waiting.append(self._executor.submit(self._load, self._next_step))
                self._next_step += 1
            with self.waits:
                return self._waiting.popleft().result()
        except BaseException:
            # Also for an interrupt: no thread may outlive the loop that it works for.
            self.close()
            raise

    def __enter__(self) -> AudioBatches:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop decoding, within the time that the clips being decoded take; the iteration ends."""
        self._stopped.set()
        self._workers.shutdown(wait=True, cancel_futures=True)
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._waiting.clear()

    def _load(self, step: int) -> AudioBatch:
        for attempt in range(SUBSTITUTES_PER_BATCH + 1):
            index = step if attempt == 0 else self._plan.substitute(step, attempt)
            specs = self._plan.batch(index)
            own = range(self._process, len(specs), self._processes)
            tasks = [self._workers.submit(self._read, index, slot, specs[slot]) for slot in own]
            read = zip(own, [task.result() for task in tasks], strict=True)
            crops = {slot: crop for slot, crop in read if crop is not None}
            # All processes must decide the same about a batch, whichever of them has its only usable clips.
            others = (slot for slot in range(len(specs)) if slot not in own)
            if crops or any(self._read(index, slot, specs[slot]) is not None for slot in others):
                samples = specs[0].samples
                waveforms = torch.zeros(len(crops), max(samples, self._least_samples))
                for row, crop in zip(waveforms, crops.values(), strict=True):
                    row[:samples] = torch.from_numpy(crop)
                return AudioBatch(
                    waveforms=waveforms,
                    seconds=len(crops) * samples / self._plan.sample_rate_hz,
                    step=step,
                    slots=tuple(crops),
                    planned=len(specs),
                )
        raise SlimvoxError(
            f"No usable audio was found in {SUBSTITUTES_PER_BATCH + 1} batches in a row: "
            f"{self.skips.summary()}. Check that these files are audio and still where they were."
        )

    def _read(self, index: int, slot: int, spec: CropSpec) -> FloatArray | None:
        """Read a crop of batch `index` of the plan, or one to replace it; None if all of them are unusable."""
        for attempt in range(REPLACEMENTS_PER_CROP + 1):
            if self._stopped.is_set():
                raise CancelledError
            if attempt > 0:
                spec = self._plan.replacement(index, slot, attempt, spec.samples)
            crop = self._reader.read(spec)
            if crop is not None:
                return crop
        return None


class Waits:
    """Time that the model waits for batches; enter it for each of them."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._count, self._seconds = 0, 0.0
        self._first = self._told = self._began = time.monotonic()
        self._seconds_told = 0.0

    @property
    def share(self) -> float:
        """Share of the time since the first batch that was spent waiting, from 0 to 1."""
        return self._seconds / max(time.monotonic() - self._first, 1e-9)

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *error: object) -> None:
        now = time.monotonic()
        self._count += 1
        if self._count == 1:
            # No clip could be decoded ahead of this one.
            self._first = self._told = now
            return
        self._seconds += now - self._began
        if now - self._told > SECONDS_PER_WARNING:
            share = (self._seconds - self._seconds_told) / (now - self._told)
            if share > WAITING_SHARE:
                logger.warning(
                    "The model waited for audio for %.0f %% of the last %.0f s: raise --workers above %d, or use a"
                    " faster disk or network.",
                    100 * share,
                    now - self._told,
                    self._workers,
                )
            self._told, self._seconds_told = now, self._seconds


def default_workers() -> int:
    """Number of cores per process on this machine, at most 32."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(2, min(32, cores // int(os.environ.get("LOCAL_WORLD_SIZE") or 1)))


def _check(*, start: int, process: int, processes: int, workers: int, prefetch: int) -> None:
    wrong: list[str] = []
    if start < 0:
        wrong.append(f"`start` must be 0 or more, but is {start} instead.")
    if not 0 <= process < processes:
        wrong.append(f"`process` must be from 0 to {processes - 1}, but is {process} instead.")
    if workers < 1:
        wrong.append(f"`workers` must be at least 1, but is {workers} instead.")
    if prefetch < 1:
        wrong.append(f"`prefetch` must be at least 1, but is {prefetch} instead.")
    if wrong:
        raise SlimvoxError(" ".join(wrong))
