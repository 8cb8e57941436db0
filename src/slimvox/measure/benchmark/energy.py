"""Energy that the processor has used, from Linux's RAPL counters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
UNAVAILABLE = "not available: this machine has no RAPL counters that can be read in /sys/class/powercap"


def read_counters() -> dict[Path, int]:
    """Microjoules by processor package, everything that runs on it included; empty where there are no counters."""
    counters = {}
    for package in sorted(POWERCAP.glob("*-rapl:*")):
        if package.name.count(":") == 1:  # the others are parts of a package
            try:
                counters[package] = int((package / "energy_uj").read_text())
            except (OSError, ValueError):  # since 2020, only root may read them
                continue
    return counters


def joules_since(before: Mapping[Path, int]) -> float | None:
    """Energy of all packages since `read_counters` gave `before`; None without counters."""
    after = read_counters()
    if not before or before.keys() != after.keys():
        return None
    used = 0
    for package, microjoules in after.items():
        used += microjoules - before[package]
        if microjoules < before[package]:  # the counter has started again from zero
            used += int((package / "max_energy_range_uj").read_text())
    return used / 1e6
