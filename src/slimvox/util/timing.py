"""Wall-clock time of calls that take turns, so that other work on the machine disturbs all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import torch

from slimvox.util.devices import CPU


def seconds_in_turns(
    calls: Mapping[str, Callable[[], object]], rounds: int, device: torch.device = CPU
) -> dict[str, list[float]]:
    """Time calls that take turns, after a warm-up round that is not counted.

    Args:
        calls: calls by name.
        rounds: number of timed runs of each.
        device: device that the calls work on; a call ends when the device has finished.

    Returns:
        seconds of every timed run, by name.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            wait_for(device)
            if number:
                times[name].append(time.perf_counter() - began)
    return times


def relative_times(times: Mapping[str, Sequence[float]], reference: str) -> dict[str, float]:
    """Times of calls that took turns, relative to one of them: medians over the rounds.

    The ratio within a round is that of two times a moment apart. On a shared machine, whose speed changes within
    seconds, it varies half as much as the ratio of the shortest times (docs/lab-notebook.md, 2026-11-26).

    Args:
        times: times of every round, by name.
        reference: name of the call that the others are divided by.
    """
    return {
        name: median(time / beside for time, beside in zip(each, times[reference], strict=True))
        for name, each in times.items()
    }


def wait_for(device: torch.device) -> None:
    """Wait until the device has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
