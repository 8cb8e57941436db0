"""How fast encoders are: interleaved runs of several, each in a process of its own."""

from slimvox.benchmark.contenders import BACKENDS, Backend, Contender
from slimvox.benchmark.result import BenchmarkResult, Measurement
from slimvox.benchmark.run import benchmark

__all__ = ["BACKENDS", "Backend", "BenchmarkResult", "Contender", "Measurement", "benchmark"]
