"""Latency of encoders on this machine: measured, fitted, and predicted from the anatomy alone."""

from slimvox.measure.latency.in_runtime import measure_in_runtime
from slimvox.measure.latency.measure import measure_latency
from slimvox.measure.latency.prepare import kept_table
from slimvox.measure.latency.real_time import real_time_factors
from slimvox.measure.latency.table import LatencyTable

__all__ = ["LatencyTable", "kept_table", "measure_in_runtime", "measure_latency", "real_time_factors"]
