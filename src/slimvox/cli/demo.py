"""`slimvox demo`: prune the embedded teacher and compare it with baselines."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from rich.console import Console

from slimvox.cli.command import command
from slimvox.util.validation import Count, Seed


@command()
class DemoCommand:
    """Prune the embedded teacher by 72 % on the embedded audio, and compare it with the dense teacher and two
    baselines.

    Takes a few minutes on two CPU cores and needs no network.
    """

    out: Path = Path("runs/demo")
    """Directory for the pruned encoder and the two baselines; results of an earlier demo are replaced."""
    max_steps: Count | None = None
    """Maximum number of training steps per run, for a quick look."""
    seed: Seed = 0
    """Random seed for gates, batches and baselines."""

    imports: ClassVar[tuple[str, ...]] = ("slimvox.cli.demo_run",)

    def run(self, console: Console) -> None:
        """Run the command."""
        from slimvox.cli.demo_run import run_demo
        from slimvox.pruning import RunInterrupted

        try:
            run_demo(self.out, max_steps=self.max_steps, seed=self.seed, console=console)
        except RunInterrupted as interruption:
            console.print("\nstopped; the next demo starts from the beginning")
            raise SystemExit(130) from interruption
