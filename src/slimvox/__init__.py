"""slimvox: smaller, faster speech encoders that still serve every downstream task."""

__version__ = "0.1.0"
