"""The version of slimvox."""

__version__ = "0.1.0"
