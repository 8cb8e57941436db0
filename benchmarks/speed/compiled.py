"""Encoders as they are and through `torch.compile`, timed in turns on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

import torch
from torch import Tensor

from slimvox.encoder import SpeechEncoder
from slimvox.measure.benchmark.contenders import noise
from slimvox.structures.anatomy import SAMPLE_RATE_HZ, EncoderAnatomy

SECONDS = (2.0, 10.0)


def table(encoders: Mapping[str, EncoderAnatomy], runs: int) -> str:
    """Markdown: milliseconds of each encoder with random weights, the largest difference, and the time to compile.

    Every length is compiled by itself, which is the most favourable case for the compiler.

    Args:
        encoders: shapes by name.
        runs: timed runs of each.
    """
    lines = [
        "| encoder | s | as it is, ms | compiled, ms | speed-up | compiled in | largest difference |",
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
                times = _in_turns({"plain": encoder, "compiled": compiled}, waveforms, runs)
            difference = (found - expected).abs().max() / expected.abs().max()
            plain, fast = median(times["plain"]), median(times["compiled"])
            lines.append(
                f"| {name} | {seconds:g} | {plain:.0f} | {fast:.0f} | **{plain / fast:.2f}x** |"
                f" {compile_seconds:.0f} s | {difference:.0e} |"
            )
    return "\n".join(lines) + f"\n\nMedians of {runs} runs in turns, float32, one clip at a time."


def _in_turns(
    ways: Mapping[str, Callable[[Tensor], object]], waveforms: Tensor, runs: int
) -> dict[str, list[float]]:
    """Milliseconds of each way, after a round that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(runs + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way(waveforms)
            times[name].append(1000 * (time.perf_counter() - began))
    return {name: each[1:] for name, each in times.items()}
