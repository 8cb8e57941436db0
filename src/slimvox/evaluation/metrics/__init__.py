"""Metrics: pure functions over numpy arrays and text."""
