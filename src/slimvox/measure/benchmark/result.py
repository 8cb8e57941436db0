"""Result of a benchmark."""

from __future__ import annotations

import dataclasses
import os
import platform
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One contender at one length and batch size."""

    label: str
    """Label of the contender."""
    batch: int
    """Batch size: number of clips at once."""
    seconds: float
    """Length of each clip."""
    milliseconds: tuple[float, ...]
    """Milliseconds of every timed run."""

    @property
    def median_ms(self) -> float:
        """Median of the runs."""
        return statistics.median(self.milliseconds)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, as a share of the median."""
        if len(self.milliseconds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.milliseconds, n=4, method="inclusive")
        return (high - low) / 2 / self.median_ms

    @property
    def real_time_factor(self) -> float:
        """Seconds of computing for one second of audio."""
        return self.median_ms / 1000 / (self.batch * self.seconds)

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            **dataclasses.asdict(self),
            "median_ms": self.median_ms,
            "spread": self.spread,
            "real_time_factor": self.real_time_factor,
        }


@dataclass(frozen=True, kw_only=True)
class ContenderReport:
    """Properties of a contender other than its times."""

    label: str
    model: str
    backend: str
    parameters: int
    macs_10s: int
    peak_memory_bytes: int
    """Peak memory of its process, libraries and weights included; 0 if the system does not report it."""
    blocks: dict[str, dict[str, float]] | None
    """Parameters, MACs and milliseconds (one clip of `block_seconds`) of each block; None if they cannot be
    measured."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkResult:
    """Measurements of all contenders."""

    machine: dict[str, Any]
    reference: str
    """Label of the contender that the others are compared with."""
    block_seconds: float
    contenders: tuple[ContenderReport, ...]
    measurements: tuple[Measurement, ...]

    def at(self, label: str, batch: int, seconds: float) -> Measurement:
        """The measurement of one contender at one point."""
        return next(m for m in self.measurements if (m.label, m.batch, m.seconds) == (label, batch, seconds))

    def speedup(self, measurement: Measurement) -> float:
        """Speed-up over the reference: the ratio of the medians."""
        reference = self.at(self.reference, measurement.batch, measurement.seconds)
        return reference.median_ms / measurement.median_ms

    def slower(self) -> list[Measurement]:
        """Measurements that are not faster than the reference."""
        return [m for m in self.measurements if m.label != self.reference and self.speedup(m) <= 1.0]

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "machine": self.machine,
            "reference": self.reference,
            "block_seconds": self.block_seconds,
            "contenders": [dataclasses.asdict(contender) for contender in self.contenders],
            "measurements": [{**m.to_dict(), "speedup": self.speedup(m)} for m in self.measurements],
        }


def machine(threads: int) -> dict[str, Any]:
    """Description of the machine that the figures were measured on."""
    import torch

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
