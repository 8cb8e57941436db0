"""The version of slimvox."""

__version__ = "0.2.0"
