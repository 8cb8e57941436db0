"""Division of long audio into overlapping chunks: the samples of each chunk, and its frames that count."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from slimvox.structures.anatomy import SAMPLE_RATE_HZ, EncoderAnatomy
from slimvox.util.errors import SlimvoxError

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ChunkPlan:
    """Division of long audio into chunks: chunk k starts at frame k x `step` and gives `frames` frames; the last may be
    longer.

    Neighbours share `overlap` frames; the earlier chunk gives the first half of them and the later one the second.
    """

    anatomy: EncoderAnatomy
    """Anatomy of the encoder, for its hop and receptive field."""
    samples: int
    """Samples in a chunk."""
    overlap: int
    """Frames that neighbouring chunks share."""

    @property
    def frames(self) -> int:
        """Number of frames of a chunk."""
        return self.anatomy.frames(self.samples)

    @property
    def step(self) -> int:
        """Number of frames from the start of a chunk to the start of the next."""
        return self.frames - self.overlap

    @property
    def longest(self) -> int:
        """Maximum number of samples of the last chunk: a remainder too short for a chunk of its own is part of it."""
        # The window of a spectrogram is longer than a frame, which its padding hides from the number of frames.
        least = 2 if self.anatomy.mel_bins else 1
        return self.samples + max(self.overlap, least) * self.anatomy.hop - 1


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A stretch of audio, and its frames that count."""

    waveform: FloatArray
    """(samples,) at 16 kHz."""
    first: int
    """Index of the first frame that counts."""
    end: int | None
    """Index after the last frame that counts; None for all up to the end."""


def plan_chunks(anatomy: EncoderAnatomy, *, chunk_seconds: float, overlap_seconds: float) -> ChunkPlan:
    """A plan from durations in seconds.

    Chunks are shorter than asked for where the last one could otherwise exceed the model's longest input.

    Raises:
        SlimvoxError: if a chunk is shorter than a frame, or the overlap is negative or as long as a chunk.
    """
    if not math.isfinite(chunk_seconds) or round(chunk_seconds * SAMPLE_RATE_HZ) < anatomy.receptive_field:
        raise SlimvoxError(
            f"`chunk_seconds` must be at least {anatomy.receptive_field / SAMPLE_RATE_HZ:g} (one frame),"
            f" but is {chunk_seconds:g} instead"
        )
    samples = round(chunk_seconds * SAMPLE_RATE_HZ)
    valid = math.isfinite(overlap_seconds) and overlap_seconds >= 0
    overlap = round(overlap_seconds * SAMPLE_RATE_HZ / anatomy.hop) if valid else 0
    extra = ChunkPlan(anatomy=anatomy, samples=0, overlap=overlap).longest
    longest = anatomy.most_samples
    if valid and longest is not None and samples + extra > longest:
        samples = longest - extra
        if samples < anatomy.receptive_field or overlap >= anatomy.frames(samples):
            raise SlimvoxError(
                f"`overlap_seconds` must be less than half the model's longest input, {longest / SAMPLE_RATE_HZ:g} s,"
                f" but is {overlap_seconds:g} instead"
            )
    if not valid or overlap >= anatomy.frames(samples):
        raise SlimvoxError(
            f"`overlap_seconds` must be at least 0 and less than `chunk_seconds` ({chunk_seconds:g}),"
            f" but is {overlap_seconds:g} instead"
        )
    return ChunkPlan(anatomy=anatomy, samples=samples, overlap=overlap)


def cut_chunks(blocks: Iterator[FloatArray], plan: ChunkPlan) -> Iterator[Chunk]:
    """Cut a stream into chunks, holding little more than one chunk at a time.

    The frames that count, joined, are as many as the whole stream would give; a stream shorter than one frame gives
    none. A stream of up to `plan.samples` samples is a single chunk.

    Args:
        blocks: consecutive waveforms (samples,) of any length.
        plan: lengths of chunks and overlaps.

    Yields:
        The chunks in order.
    """
    step_samples = plan.step * plan.anatomy.hop
    buffer = np.zeros(0, dtype=np.float32)
    first = 0
    while True:
        parts, count = [buffer], len(buffer)
        for block in blocks:
            parts.append(block)
            count += len(block)
            if count > plan.longest:
                break
        buffer = np.concatenate(parts)
        if count <= plan.longest:
            # The audio has ended: the rest is one chunk, however little of it is new.
            if count >= plan.anatomy.receptive_field:
                yield Chunk(waveform=buffer, first=first, end=None)
            return
        end = plan.step + plan.overlap // 2
        yield Chunk(waveform=buffer[: plan.samples], first=first, end=end)
        buffer = buffer[step_samples:].copy()
        first = plan.overlap // 2
