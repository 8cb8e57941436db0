"""Speed of encoders: interleaved runs of several models, each in its own process."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slimvox.measure.benchmark.contenders import Contender, backend_names
    from slimvox.measure.benchmark.result import BenchmarkResult, Measurement
    from slimvox.measure.benchmark.run import benchmark

__all__ = ["BenchmarkResult", "Contender", "Measurement", "backend_names", "benchmark"]

_HOMES = {
    "BenchmarkResult": "result",
    "Contender": "contenders",
    "Measurement": "result",
    "backend_names": "contenders",
    "benchmark": "run",
}


def __getattr__(name: str) -> Any:
    """Import on first use: the processes of runtimes other than torch do not import torch."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"slimvox.measure.benchmark.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
