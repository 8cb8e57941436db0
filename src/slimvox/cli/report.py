"""`slimvox report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

import tyro
from rich.console import Console

from slimvox.cli.command import command
from slimvox.util.errors import SlimvoxError


@command()
class ReportCommand:
    """Make an HTML page about one or several runs: anatomy, training, gates, costs, scores and recipe.

    The page is a single file that loads nothing else. Unfinished runs are included up to their last step.
    """

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN_OR_DIR...")]
    """Directories written by `slimvox prune`, or folders of them; several runs are compared side by side."""
    out: Path = Path("report.html")
    """HTML file to write; an earlier report is replaced."""
    scores: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="DIR...")] = ()
    """Folders written by `slimvox evaluate --out`, for these and other models; a folder `scores` in a run's directory
    is found automatically."""
    benchmark: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE...")] = ()
    """Files written by `slimvox benchmark --out`."""

    imports: ClassVar[tuple[str, ...]] = ("slimvox.report",)

    def run(self, console: Console) -> None:
        """Run the command."""
        from slimvox.report import read_runs, read_scores, read_speeds, report_page, write_report
        from slimvox.report.write import check_out

        if not self.runs:
            raise SlimvoxError("no run given; give the directory of a run, or a folder of runs")
        out = self.out.expanduser()
        check_out(out)
        runs = read_runs(self.runs)
        page = report_page(runs, read_scores(self.scores, runs), read_speeds(self.benchmark, runs))
        write_report(page, out)
        what = runs[0].label if len(runs) == 1 else f"{len(runs)} runs"
        console.print(f"{what}: written to {out} ({len(page) / 1e3:.0f} kB)", soft_wrap=True, markup=False)
