"""Wall-clock time of calls that take turns, so that other work on the machine disturbs all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

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


def wait_for(device: torch.device) -> None:
    """Wait until the device has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
