"""`slimvox figures`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

import tyro
from rich.console import Console

from slimvox.cli.command import command
from slimvox.util.output_paths import check_output_folder


@command()
class FiguresCommand:
    """Draw the paper's Figures 1 to 3 and a Pareto front from measured runs, as SVG and PNG.

    figure1 (the gates' distribution, with and without the straight-through estimator) needs no run. figure2 is quality
    against parameters, figure3 the effect of the straight-through estimator, pareto quality against every cost. Runs
    that differ only in their seed become one point, runs that differ only in their target one line.
    """

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN_OR_DIR...")] = ()
    """Directories written by `slimvox prune`, or folders of them."""
    out: Path
    """Output folder; figures of an earlier call are replaced."""
    scores: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="DIR...")] = ()
    """Folders written by `slimvox evaluate --out`, for these and other models; a folder `scores` in a run's directory
    is found automatically."""
    benchmark: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE...")] = ()
    """Files written by `slimvox benchmark --out`, for the speed in the Pareto front."""
    quality: Annotated[str, tyro.conf.arg(metavar="QUALITY")] = "auto"
    """Quality measure on the axes: `distance` to the teacher; `mini`, `superb_s` or `mean11` (scores over all tasks); a
    metric such as pr; or `auto` (the score over all tasks if every run has one, otherwise the distance)."""
    imports: ClassVar[tuple[str, ...]] = ("slimvox.report.figures", "slimvox.report")

    def run(self, console: Console) -> None:
        """Run the command."""
        from slimvox.report import read_runs, read_scores, read_speeds
        from slimvox.report.figures import choose_quality, draw_figures

        check_output_folder(self.out.expanduser(), "--out")
        runs = read_runs(self.runs)
        quality = choose_quality(self.quality, runs, read_scores(self.scores, runs))
        speeds = read_speeds(self.benchmark, runs)
        drawn = draw_figures(runs, quality, speeds, self.out.expanduser())
        for path in drawn.files:
            console.print(f"written: {path}", soft_wrap=True, markup=False)
        for remark in drawn.remarks:
            console.print(remark, soft_wrap=True, markup=False)
