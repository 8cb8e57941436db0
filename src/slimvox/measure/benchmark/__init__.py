"""Speed of encoders: interleaved runs of several models, each in its own process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slimvox.util.imports import lazy_attributes

if TYPE_CHECKING:
    from slimvox.measure.benchmark.contenders import Contender, backend_names
    from slimvox.measure.benchmark.result import BenchmarkResult, Measurement
    from slimvox.measure.benchmark.run import benchmark

__all__ = ["BenchmarkResult", "Contender", "Measurement", "backend_names", "benchmark"]

_HOMES = {
    "BenchmarkResult": "slimvox.measure.benchmark.result",
    "Contender": "slimvox.measure.benchmark.contenders",
    "Measurement": "slimvox.measure.benchmark.result",
    "backend_names": "slimvox.measure.benchmark.contenders",
    "benchmark": "slimvox.measure.benchmark.run",
}

# The processes of runtimes other than torch do not import torch.
__getattr__ = lazy_attributes(__name__, _HOMES)
