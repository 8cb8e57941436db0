"""Real-time factors of encoders, measured side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from statistics import median

import torch

from slimvox.encoder import SpeechEncoder
from slimvox.structures.anatomy import SAMPLE_RATE_HZ
from slimvox.util.timing import relative_times, seconds_in_turns


def real_time_factors(
    encoders: Mapping[str, SpeechEncoder], *, seconds: float = 10.0, rounds: int = 7
) -> dict[str, float]:
    """Seconds of computing per second of audio, one clip at a time.

    That of the first encoder is a median over rounds; those of the others are it times the median of their ratios to it
    within a round, which other load on the machine disturbs less (`relative_times`).

    Args:
        encoders: encoders by name, all on one device; the first is the one that the others are compared with.
        seconds: length of the clip.
        rounds: number of rounds for the medians; the encoders take turns, after a warm-up round.

    Raises:
        ValueError: if there are no encoders, no rounds, or no samples.
    """
    if not encoders or rounds < 1 or not 0 < seconds < math.inf:
        raise ValueError(
            f"{len(encoders)} encoders cannot be timed in {rounds} rounds on {seconds:g} s of audio"
        )
    device = next(next(iter(encoders.values())).parameters()).device
    samples = int(SAMPLE_RATE_HZ * seconds)
    waveform = 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(0)).to(device)
    calls = {name: partial(encoder, waveform) for name, encoder in encoders.items()}
    with torch.inference_mode():
        times = seconds_in_turns(calls, rounds, device)
    first = next(iter(times))
    factor = median(times[first]) / seconds
    return {name: factor * ratio for name, ratio in relative_times(times, first).items()}
