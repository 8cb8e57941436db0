"""`slimvox demo`: prune the embedded teacher and compare it with baselines."""

from __future__ import annotations

from rich.console import Console

from slimvox.cli.command import Command, command


@command("slimvox.cli.demo_run.run_demo")
class DemoCommand(Command):
    """Prune the embedded teacher by 72 % on the embedded audio, and compare it with the dense teacher and two
    baselines.

    Takes a few minutes on two CPU cores and needs no network.
    """

    def run(self, console: Console) -> None:
        """Run the command."""
        from slimvox.pruning import RunInterrupted

        try:
            self.call(console=console)
        except RunInterrupted as interruption:
            console.print("\nstopped; the next demo starts from the beginning")
            raise SystemExit(130) from interruption
