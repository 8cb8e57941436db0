"""Result of a benchmark."""

from __future__ import annotations

import dataclasses
import os
import platform
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimvox.measure.benchmark.contenders import TRANSFORMERS


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One contender at one length and batch size."""

    label: str
    """Label of the contender."""
    batch: int
    """Batch size: number of clips at once."""
    seconds: float
    """Length of each clip."""
    threads: int
    """Number of CPU threads."""
    milliseconds: tuple[float, ...]
    """Milliseconds of every timed run."""
    joules: float | None = None
    """Median energy of a run, of the whole processor; None if the machine does not count it."""

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
    dense: str | None
    """Label of the dense model in the same backend, its own if it is dense; None if that was not measured."""
    file_bytes: int
    """Size of the files with the weights, or of the exported program."""
    import_seconds: float
    """Time to import the runtime in a fresh process."""
    load_seconds: float
    """Time to load the model there."""
    first_call_seconds: float
    """Time of the first call there, one clip of `block_seconds`."""
    peak_memory_bytes: int
    """Peak memory of its process at all lengths and batch sizes, libraries and weights included, or of the GPU; 0 if
    the system does not report it."""
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

    def at(self, label: str, batch: int, seconds: float, threads: int) -> Measurement:
        """The measurement of one contender at one point."""
        point = (label, batch, seconds, threads)
        return next(m for m in self.measurements if (m.label, m.batch, m.seconds, m.threads) == point)

    def contender(self, label: str) -> ContenderReport:
        """The contender with a label."""
        return next(each for each in self.contenders if each.label == label)

    def ratio(self, label: str | None, measurement: Measurement) -> float | None:
        """Ratio of a contender's median at the same point to that of the measurement; None for no contender."""
        if label is None:
            return None
        other = self.at(label, measurement.batch, measurement.seconds, measurement.threads)
        return other.median_ms / measurement.median_ms

    def speedup(self, measurement: Measurement) -> float:
        """Speed-up over the reference: that by the runtime times that by pruning, where both are known."""
        ratio = self.ratio(self.reference, measurement)
        assert ratio is not None
        return ratio

    def by_pruning(self, measurement: Measurement) -> float | None:
        """Speed-up over the dense model in the same backend; None if that was not measured."""
        return self.ratio(self.contender(measurement.label).dense, measurement)

    def by_runtime(self, measurement: Measurement) -> float | None:
        """Speed-up of the dense model in the same backend over the reference.

        None if that was not measured, or the reference is not the dense model in `transformers`.
        """
        pruning = self.by_pruning(measurement)
        if pruning is None or self.contender(self.reference).backend != TRANSFORMERS:
            return None
        return self.speedup(measurement) / pruning

    def slower(self) -> list[Measurement]:
        """Measurements that are not faster than the reference."""
        return [m for m in self.measurements if m.label != self.reference and self.speedup(m) <= 1.0]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> BenchmarkResult:
        """The reverse of `to_dict`.

        Raises:
            KeyError: if a field is missing.
        """

        def own(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
            return {field.name: values[field.name] for field in dataclasses.fields(kind)}

        measurements = [own(Measurement, each) for each in data["measurements"]]
        for each in measurements:
            each["milliseconds"] = tuple(each["milliseconds"])
        return cls(
            **own(cls, data)
            | {
                "contenders": tuple(
                    ContenderReport(**own(ContenderReport, each)) for each in data["contenders"]
                ),
                "measurements": tuple(Measurement(**each) for each in measurements),
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "machine": self.machine,
            "reference": self.reference,
            "block_seconds": self.block_seconds,
            "contenders": [dataclasses.asdict(contender) for contender in self.contenders],
            "measurements": [
                {
                    **m.to_dict(),
                    "speedup": self.speedup(m),
                    "by_runtime": self.by_runtime(m),
                    "by_pruning": self.by_pruning(m),
                }
                for m in self.measurements
            ],
        }


def machine(threads: int, device: str = "cpu") -> dict[str, Any]:
    """Description of the machine that the figures were measured on; `threads`: the most that were used."""
    import torch

    return {
        "processor": hardware("cpu"),
        "cores": os.cpu_count(),
        "threads": threads,
        "device": hardware(device) if device == "cuda" else device,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def place_of(device: str) -> str:
    """Name of this machine's processor and its number of cores or, for `cuda`, of its GPU, to tell machines apart."""
    return hardware(device) if device == "cuda" else f"{hardware(device)} ({os.cpu_count()} cores)"


def hardware(device: str) -> str:
    """Name of this machine's processor or, for `cuda`, of its GPU."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
