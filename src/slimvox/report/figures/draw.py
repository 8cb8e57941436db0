"""Drawing of all figures that the given runs allow, and writing them to files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slimvox.report.figures.arms import arms_of
from slimvox.report.figures.hard_concrete import hard_concrete_figure
from slimvox.report.figures.quality import Quality, choose_quality
from slimvox.report.figures.scatter import pareto_figure, quality_figure
from slimvox.report.figures.straight_through import straight_through_figure, straight_through_pairs
from slimvox.report.figures.style import rendered, style
from slimvox.report.runs import RunRecord, read_runs
from slimvox.report.score_files import read_scores
from slimvox.report.speeds import Speed, read_speeds
from slimvox.util.files import write_atomically
from slimvox.util.imports import require
from slimvox.util.output_paths import check_output_folder, writing
from slimvox.util.validation import checked_arguments


@dataclass(frozen=True, kw_only=True)
class FiguresResult:
    """Figures that were drawn, and the reasons for those that were not."""

    files: tuple[Path, ...]
    remarks: tuple[str, ...]
    """Sentences: figures skipped, runs left out."""


@checked_arguments
def draw_figures(
    runs: str | Path | Sequence[str | Path] = (),
    *,
    out: str | Path,
    scores: Sequence[str | Path] = (),
    benchmark: Sequence[str | Path] = (),
    quality: str = "auto",
) -> FiguresResult:
    """Draw the paper's Figures 1 to 3 and a Pareto front from measured runs, as SVG and PNG.

    figure1 is always drawn, the others if there are runs for them. All are drawn before any is written.

    Args:
        runs: directories written by `slimvox prune`, or folders of them.
        out: output folder; figures of an earlier call are replaced.
        scores: folders written by `slimvox evaluate --out`, for these and other models; those in a
            folder named scores in a run's directory are found automatically.
        benchmark: files written by `slimvox benchmark --out`, for the speed in the Pareto front.
        quality: quality measure on the axes: `distance` to the teacher; `mini`, `superb_s` or `mean11` (scores over all
            tasks); a metric such as pr; or `auto` (the score over all tasks if every run has one, otherwise the
            distance).

    Raises:
        SlimvoxError: if matplotlib is missing, a run, score or benchmark does not exist or is damaged, there is no such
            measure, or `out` is a file or cannot be written.
    """
    require(["matplotlib"], "drawing figures", extra="figures")
    out = Path(out).expanduser()
    check_output_folder(out, "--out")
    found = read_runs([runs] if isinstance(runs, str | Path) else runs)
    measure = choose_quality(quality, found, read_scores(scores, found))
    return _draw(found, measure, read_speeds(benchmark, found), out)


def _draw(runs: Sequence[RunRecord], quality: Quality, speeds: Sequence[Speed], out: Path) -> FiguresResult:
    remarks = []
    arms = arms_of(runs, quality)
    pairs = straight_through_pairs(arms)
    speedups = _speedups(speeds)
    files: dict[str, bytes] = {}
    with style():
        figures = {"figure1": hard_concrete_figure()}
        if arms:
            figures["figure2"] = quality_figure(arms, quality)
            figures["pareto"] = pareto_figure(arms, quality, speedups)
        if pairs:
            figures["figure3"] = straight_through_figure(pairs[0], quality)
        for name, figure in sorted(figures.items()):
            files |= {f"{name}.{suffix}": content for suffix, content in rendered(figure).items()}
    remarks += _remarks(runs, quality, drawn=set(figures), pairs=len(pairs), speedups=bool(speedups))
    with writing(f"`--out` {out}"):
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_atomically(out / name, content)
    return FiguresResult(files=tuple(out / name for name in files), remarks=tuple(remarks))


def _speedups(speeds: Sequence[Speed]) -> dict[str, float]:
    """Speed-up by label of the run, for single clips of the length nearest to 10 s."""
    chosen: dict[str, float] = {}
    for speed in sorted(speeds, key=Speed.from_10_s):
        if speed.run is not None:
            chosen.setdefault(speed.run.label, speed.speedup)
    return chosen


def _remarks(
    runs: Sequence[RunRecord], quality: Quality, *, drawn: set[str], pairs: int, speedups: bool
) -> list[str]:
    remarks = []
    if not runs:
        remarks.append("figure2, figure3 and pareto are skipped: no run was given.")
        return remarks
    unmeasured = [run.label for run in runs if run.label not in quality.values]
    if unmeasured:
        remarks.append(f"Left out, with no {quality.name} measured: {', '.join(unmeasured)}.")
    if "figure2" not in drawn:
        remarks.append(f"figure2 and pareto are skipped: no run has its {quality.name} measured.")
    if "figure3" not in drawn:
        remarks.append(
            "figure3 is skipped: it takes runs with `gates.straight_through=false` beside runs that are the same but"
            " for that."
        )
    if pairs > 1:
        remarks.append(f"figure3 shows the first of {pairs} pairs of arms with and without the STE.")
    if "pareto" in drawn and not speedups:
        remarks.append(
            "pareto has no panel for speed: no result of `slimvox benchmark` was given for these runs."
        )
    return remarks
