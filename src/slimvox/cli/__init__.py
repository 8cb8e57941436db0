"""The command line: one typed dataclass per command, parsed by tyro."""

from slimvox.cli.main import main

__all__ = ["main"]
