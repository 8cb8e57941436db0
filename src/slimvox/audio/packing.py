"""Cutting lengths into batches."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

KEPT_SHARE = 0.9
"""Minimum share of the audio that is kept when batches are cut to their shortest clip, at the cost of batch size."""
_SPREADS = (4.0, 3.0, 2.0, 1.5, 1.3, 1.2, 1.1)


def split(clip_samples: IntArray, max_samples: int) -> tuple[IntArray, IntArray, IntArray]:
    """Split clips into parts of at least `max_samples` samples, unless the clip itself is shorter.

    Returns:
        The clip, first sample and number of samples of each part, (parts,) each.
    """
    counts = np.maximum(clip_samples // max_samples, 1)
    clip = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(clip)) - np.repeat(np.cumsum(counts) - counts, counts)
    start = number * clip_samples[clip] // counts[clip]
    stop = (number + 1) * clip_samples[clip] // counts[clip]
    return clip, start, stop - start


def pack(lengths: IntArray, budget: int) -> IntArray:
    """Cut sorted `lengths` into batches: each cut to its shortest, none above `budget` samples.

    The lengths in a batch may spread as widely as still keeps `KEPT_SHARE` of all samples.

    Returns:
        The first position of each batch, then the number of all lengths (batches + 1,).
    """
    for spread in _SPREADS:
        starts = _pack_within(lengths, budget, spread)
        kept = (np.diff(starts) * lengths[starts[:-1]]).sum()
        if kept >= KEPT_SHARE * lengths.sum():
            break
    return starts


def _pack_within(lengths: IntArray, budget: int, spread: float) -> IntArray:
    """Cut sorted `lengths` into batches of at most `budget` samples, max_samples / shortest at most `spread`.

    Returns:
        The first position of each batch, then the number of all lengths (batches + 1,).
    """
    starts = [0]
    while starts[-1] < len(lengths):
        start = starts[-1]
        shortest = int(lengths[start])
        similar = int(np.searchsorted(lengths, int(shortest * spread), side="right"))
        starts.append(min(start + max(1, budget // shortest), similar))
    return np.asarray(starts, dtype=np.int64)
