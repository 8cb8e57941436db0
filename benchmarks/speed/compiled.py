"""Interleaved timings of encoders in eager mode and compiled by `torch.compile`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from statistics import median

import torch

from slimvox.encoder import SpeechEncoder
from slimvox.measure.benchmark.contenders import noise
from slimvox.structures.anatomy import SAMPLE_RATE_HZ, EncoderAnatomy
from slimvox.util.timing import seconds_in_turns

SECONDS = (2.0, 10.0)


def table(encoders: Mapping[str, EncoderAnatomy], runs: int) -> str:
    """Markdown: milliseconds of each encoder with random weights, the largest difference, and the time to compile.

    Every length is compiled by itself, which is the most favourable case for the compiler.

    Args:
        encoders: shapes by name.
        runs: timed runs of each.
    """
    lines = [
        "| encoder | s | eager, ms | compiled, ms | speed-up | compiled in | largest difference |",
        "|---" * 7 + "|",
    ]
    for name, anatomy in encoders.items():
        torch.manual_seed(0)
        encoder = SpeechEncoder(anatomy).eval()
        for seconds in SECONDS:
            torch.compiler.reset()
            waveforms = torch.from_numpy(noise(1, round(seconds * SAMPLE_RATE_HZ)))
            compiled = torch.compile(encoder, dynamic=False)
            with torch.inference_mode():
                expected = encoder(waveforms).last_hidden_state
                began = time.perf_counter()
                found = compiled(waveforms).last_hidden_state
                compile_seconds = time.perf_counter() - began
                ways = {"plain": partial(encoder, waveforms), "compiled": partial(compiled, waveforms)}
                times = seconds_in_turns(ways, runs)
            difference = (found - expected).abs().max() / expected.abs().max()
            plain, fast = (1000 * median(times[each]) for each in ways)
            lines.append(
                f"| {name} | {seconds:g} | {plain:.0f} | {fast:.0f} | **{plain / fast:.2f}x** |"
                f" {compile_seconds:.0f} s | {difference:.0e} |"
            )
    return "\n".join(lines) + f"\n\nMedians of {runs} interleaved runs, float32, one clip at a time."
