"""Latency of encoders: measured, fitted, and predicted from the anatomy alone."""

from slimvox.measure.latency.file import read_table, write_table
from slimvox.measure.latency.in_runtime import measure_in_runtime
from slimvox.measure.latency.in_torch import measure_in_torch
from slimvox.measure.latency.prepare import kept_table
from slimvox.measure.latency.real_time import real_time_factors
from slimvox.measure.latency.run import measure_latency
from slimvox.measure.latency.table import LatencyTable

__all__ = [
    "LatencyTable",
    "kept_table",
    "measure_in_runtime",
    "measure_in_torch",
    "measure_latency",
    "read_table",
    "real_time_factors",
    "write_table",
]
