"""`slimvox demo`: the whole story on the embedded teacher."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console


@dataclass(frozen=True, kw_only=True)
class DemoCommand:
    """Prune the embedded teacher by 72 % on the embedded audio, and compare it with the dense one and two controls.

    Takes a few minutes on two CPU cores and needs no network.
    """

    out: Path = Path("runs/demo")
    """Directory for the pruned encoder and the two controls; what an earlier demo left there is replaced."""
    max_steps: int | None = None
    """Squeeze each run into this many steps, to see it work."""
    seed: int = 0
    """Of everything random."""

    def run(self, console: Console) -> None:
        """Run the command."""
        from slimvox.demo import run_demo
        from slimvox.pruning import RunInterrupted

        try:
            run_demo(self.out, max_steps=self.max_steps, seed=self.seed, console=console)
        except RunInterrupted as interruption:
            console.print("\nstopped; the next demo starts from the beginning")
            raise SystemExit(130) from interruption
