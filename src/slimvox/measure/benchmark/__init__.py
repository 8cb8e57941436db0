"""Speed of encoders: interleaved runs of several models, each in its own process."""

from slimvox.measure.benchmark.contenders import Contender, backend_names
from slimvox.measure.benchmark.result import BenchmarkResult, Measurement
from slimvox.measure.benchmark.run import benchmark

__all__ = ["BenchmarkResult", "Contender", "Measurement", "backend_names", "benchmark"]
