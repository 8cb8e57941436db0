"""The command line: one typed dataclass per command, parsed by tyro."""

from slimvox.cli.interrupts import leave_when_interrupted

with leave_when_interrupted():
    from slimvox.cli.main import main

__all__ = ["main"]
