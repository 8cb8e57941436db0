"""`slimvox latency`."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, ClassVar

from rich.console import Console
from rich.table import Table

from slimvox.cli.command import MODEL, Argument, VerboseOption, command, showing

if TYPE_CHECKING:
    from pathlib import Path

    from slimvox.measure.latency import LatencyTable


@command(
    "slimvox.measure.latency.run.measure_latency",
    model=MODEL,
    runtime=Argument(metavar="RUNTIME"),
)
class LatencyCommand(VerboseOption):
    """Measure how long encoders of a model's shape take on this machine, for `slimvox prune --latency-table`.

    Run it where the pruned encoder will be used; the table can then be used on any other machine.
    """

    if TYPE_CHECKING:
        model: str
        out: Path | None

    json: bool = False
    """Print JSON: the table, with the nanoseconds per unit of each feature."""

    imports: ClassVar[tuple[str, ...]] = ("slimvox.costs", "slimvox.measure.latency.prepare")

    def run(self, console: Console) -> None:
        """Run the command."""
        with showing("loading") as show:
            table: LatencyTable = self.call(on_progress=show)
        if self.json:
            print(json.dumps(table.to_dict(), indent=1))
        else:
            _print(console, self.model, table)
        if self.out is not None and not self.json:
            model, out = shlex.quote(self.model), shlex.quote(str(self.out))
            console.print(
                f"written to {self.out}; to use it, also on another machine: slimvox prune {model} AUDIO --out DIR"
                f" --target-speed 2x --latency-table {out}",
                soft_wrap=True,
                highlight=False,
            )


def _print(console: Console, model: str, table: LatencyTable) -> None:
    """Print the time of the dense encoder, and the share of each kind of block."""
    from slimvox.checkpoint.resolve import find_anatomies
    from slimvox.costs import BLOCK_KINDS

    _, dense = find_anatomies(model)
    costs = table.by_block(dense)
    console.print(f"{model}: {table.summary(dense)}", soft_wrap=True, highlight=False)
    shown = Table()
    shown.add_column("block")
    shown.add_column("predicted share", justify="right")
    for kind, title in BLOCK_KINDS.items():
        shown.add_row(title, f"{costs.kind(kind) / costs.total:.0%}")
    console.print(shown)
