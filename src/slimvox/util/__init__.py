"""Helpers that know nothing about encoders: errors, checks of values, files, devices, quantities."""
