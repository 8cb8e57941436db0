"""Measurement of time: benchmarks of encoders, and latency as a cost to prune for."""
