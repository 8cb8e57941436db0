"""Micro-batches: the parts of a step's audio that go through the encoder one after the other."""

from __future__ import annotations

import ctypes
import gc
import itertools
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from slimvox.structures.anatomy import SAMPLE_RATE_HZ
from slimvox.util.errors import SlimvoxError

logger = logging.getLogger("slimvox.pruning")
_C_LIBRARY = ctypes.CDLL(None) if os.name == "posix" else None


@dataclass(frozen=True, kw_only=True)
class Division:
    """A division of a step's audio, which affects memory and time, and results only by the order of sums."""

    seconds: float
    """Maximum seconds of audio in a forward pass; a clip is never divided."""
    recompute: bool = False
    """True to use activation checkpointing, see `slimvox.pruning.recomputation`."""

    def parts(self, clips: int, samples: int) -> list[slice]:
        """The clips of each micro-batch, in order; sizes differ by at most one clip."""
        most = max(1, int(min(clips, self.seconds * SAMPLE_RATE_HZ / samples + 1e-6)))
        count = -(-clips // most)
        ends = [clips * number // count for number in range(count + 1)] if count else [0]
        return [slice(start, stop) for start, stop in itertools.pairwise(ends)]


class MicroBatches:
    """The division of the steps of a run; smaller after each time that memory ran out.

    Attributes:
        division: the current one.
    """

    def __init__(
        self,
        division: Division,
        *,
        may_recompute: bool = True,
        remember: Callable[[Division], None] = lambda division: None,
    ) -> None:
        """Start with a division.

        Args:
            division: first division.
            may_recompute: use activation checkpointing if single clips do not fit without it.
            remember: called with each later division.
        """
        self.division = division
        self._may_recompute, self._remember = may_recompute, remember

    def shrink(self, clips: int, samples: int) -> None:
        """Halve the micro-batches of a step that ran out of memory, or turn on activation checkpointing.

        Args:
            clips: largest number of clips of the step in one process.
            samples: length of each.

        Raises:
            SlimvoxError: if neither is possible.
        """
        largest = max((part.stop - part.start for part in self.division.parts(clips, samples)), default=1)
        if largest > 1:
            seconds = (largest // 2) * samples / SAMPLE_RATE_HZ
            self.division = replace(self.division, seconds=seconds)
        elif self._may_recompute and not self.division.recompute:
            self.division = replace(self.division, recompute=True)
        else:
            raise no_clip_fits(samples / SAMPLE_RATE_HZ, self.division.recompute)
        logger.warning(
            "Memory ran out: the step is repeated in micro-batches of %.1f s%s.",
            self.division.seconds,
            " with activation checkpointing" if self.division.recompute else "",
        )
        self._remember(self.division)


def no_clip_fits(seconds: float, recompute: bool) -> SlimvoxError:
    """The error for steps that cannot be divided any further."""
    return SlimvoxError(
        f"there is not enough memory for a single clip of {seconds:.1f} s; set a lower `data.max_seconds`"
        + ("" if recompute else ", allow activation checkpointing (`--checkpoint-activations auto`)")
        + " or use a device with more memory"
    )


def ran_out_of_memory(error: BaseException) -> bool:
    """True if an exception says that memory, of a device or of the machine, ran out."""
    return isinstance(error, MemoryError) or (
        isinstance(error, Exception) and should_reduce_batch_size(error)
    )


def release_memory() -> None:
    """Release unreferenced memory, including cached memory of a device and free pages of the heap."""
    gc.collect()
    clear_device_cache()
    trim_heap()


def trim_heap() -> None:
    """Return the free pages of the heap to the operating system; only glibc keeps them, and can be asked to."""
    trim = getattr(_C_LIBRARY, "malloc_trim", None)
    if trim is not None:
        trim(0)
