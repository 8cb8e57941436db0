"""`slimvox figures`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from slimvox.cli.command import FILES, RUNS, SCORES, Argument, Command, command

if TYPE_CHECKING:
    from slimvox.report.figures import FiguresResult


@command(
    "slimvox.report.figures.draw.draw_figures",
    runs=RUNS,
    scores=SCORES,
    benchmark=FILES,
    quality=Argument(metavar="QUALITY"),
)
class FiguresCommand(Command):
    """Draw the paper's Figures 1 to 3 and a Pareto front from measured runs, as SVG and PNG.

    figure1 shows the gates' distribution with and without the straight-through estimator and needs no run. figure2
    shows quality against parameters, figure3 the effect of the straight-through estimator, and pareto quality against
    every cost. Runs that differ only in their seed become one point; runs that differ only in their size become one
    line.
    """

    def run(self, console: Console) -> None:
        """Run the command."""
        drawn: FiguresResult = self.call()
        for path in drawn.files:
            console.print(f"written: {path}", soft_wrap=True)
        for remark in drawn.remarks:
            console.print(remark, soft_wrap=True)
