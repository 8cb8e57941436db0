"""`slimvox report`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from slimvox.cli.command import FILES, RUNS, SCORES, Command, command

if TYPE_CHECKING:
    from slimvox.report import ReportResult


@command("slimvox.report.write.make_report", runs=RUNS, scores=SCORES, benchmark=FILES)
class ReportCommand(Command):
    """Make an HTML page about one or several runs: anatomy, training, gates, costs, scores and recipe.

    The page is a single file that loads nothing else. Unfinished runs are included up to their last step.
    """

    def run(self, console: Console) -> None:
        """Run the command."""
        report: ReportResult = self.call()
        what = report.runs[0] if len(report.runs) == 1 else f"{len(report.runs)} runs"
        size = report.path.stat().st_size / 1e3
        console.print(f"{what}: written to {report.path} ({size:.0f} kB)", soft_wrap=True)
