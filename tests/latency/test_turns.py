"""Calls that are timed in turns."""

from __future__ import annotations

import pytest
import torch

from slimvox.util import timing
from slimvox.util.timing import relative_times, seconds_in_turns


def test_calls_take_turns_and_the_first_round_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now, called = 0.0, []
    seconds = {"slow": iter([100.0, 3.0, 4.0]), "fast": iter([50.0, 1.0, 2.0])}

    def call(name: str) -> None:
        nonlocal now
        called.append(name)
        now += next(seconds[name])

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)
    times = seconds_in_turns({"slow": lambda: call("slow"), "fast": lambda: call("fast")}, rounds=2)
    assert called == ["slow", "fast"] * 3
    assert times == {"slow": [3.0, 4.0], "fast": [1.0, 2.0]}


def test_a_call_ends_when_the_device_has_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    now, queued, device = 0.0, [7.0], torch.device("meta")

    def wait(given: torch.device) -> None:
        nonlocal now
        assert given == device
        now += sum(queued)
        queued.clear()

    monkeypatch.setattr(timing, "wait_for", wait)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)
    times = seconds_in_turns({"call": lambda: queued.append(5.0)}, rounds=1, device=device)
    assert times == {"call": [5.0]}


def test_ratios_are_those_of_one_round() -> None:
    """The machine is four times as slow in the last two rounds, and one call is delayed once by other load."""
    times = {"dense": [2.0, 2.0, 2.0, 8.0, 8.0], "pruned": [1.0, 1.0, 9.0, 4.0, 4.0]}
    assert relative_times(times, "dense") == {"dense": 1.0, "pruned": 0.5}
    with pytest.raises(ValueError, match="longer"):
        relative_times({"dense": [1.0, 2.0], "pruned": [1.0]}, "dense")
