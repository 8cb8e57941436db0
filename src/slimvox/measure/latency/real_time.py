"""Real-time factors of encoders, measured side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from statistics import median

import torch

from slimvox.encoder import SpeechEncoder
from slimvox.structures.anatomy import SAMPLE_RATE_HZ
from slimvox.util.timing import seconds_in_turns


def real_time_factors(
    encoders: Mapping[str, SpeechEncoder], *, seconds: float = 10.0, rounds: int = 7
) -> dict[str, float]:
    """Seconds of computing per second of audio, one clip at a time.

    Args:
        encoders: encoders by name, all on one device.
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
    return {name: median(each) / seconds for name, each in times.items()}
