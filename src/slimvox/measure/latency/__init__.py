"""Latency of encoders on this machine: measured, fitted, and predicted from the anatomy alone."""

from slimvox.measure.latency.measure import measure_latency
from slimvox.measure.latency.real_time import real_time_factors
from slimvox.measure.latency.table import LatencyTable

__all__ = ["LatencyTable", "measure_latency", "real_time_factors"]
