"""Write a report page, or the tables of a page whose text is written by hand, to a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slimvox.report.page import GENERATOR, report_page
from slimvox.report.runs import read_runs
from slimvox.report.score_files import read_scores
from slimvox.report.speeds import read_speeds
from slimvox.util.errors import SlimvoxError
from slimvox.util.files import write_atomically
from slimvox.util.output_paths import check_output_file, writing
from slimvox.util.validation import checked_arguments


@dataclass(frozen=True, kw_only=True)
class ReportResult:
    """A page that was written."""

    path: Path
    runs: tuple[str, ...]
    """Labels of the runs on the page."""


@checked_arguments
def make_report(
    runs: str | Path | Sequence[str | Path],
    out: str | Path = Path("report.html"),
    *,
    scores: Sequence[str | Path] = (),
    benchmark: Sequence[str | Path] = (),
) -> ReportResult:
    """Make an HTML page about one or several runs: anatomy, training, gates, costs, scores and recipe.

    The page is a single file that loads nothing else. Unfinished runs are included up to their last step.

    Args:
        runs: directories written by `slimvox prune`, or folders of them; several runs are compared side by side.
        out: HTML file to write; an earlier report is replaced.
        scores: folders written by `slimvox evaluate --out`, for these and other models; those in a
            folder named scores in a run's directory are found automatically.
        benchmark: files written by `slimvox benchmark --out`.

    Raises:
        SlimvoxError: if a run, score or benchmark does not exist or is damaged, or `out` cannot be written or is a file
            that is not a report.
    """
    paths = [runs] if isinstance(runs, str | Path) else list(runs)
    if not paths:
        raise SlimvoxError("no run given; give the directory of a run, or a folder of runs")
    out = Path(out).expanduser()
    _check_out(out)
    found = read_runs(paths)
    page = report_page(found, read_scores(scores, found), read_speeds(benchmark, found))
    with writing(f"`--out` {out}"):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, page.encode())
    return ReportResult(path=out, runs=tuple(run.label for run in found))


def _check_out(out: Path) -> None:
    """Raise SlimvoxError if a page cannot be written to `out`: a directory, or a file that is not a report."""
    if out.is_dir():
        raise SlimvoxError(f"`--out` {out} is a directory; give a file such as {out / 'report.html'}")
    check_output_file(out, "--out")
    if not out.exists():
        return
    with out.open("rb") as file:
        start = file.read(1000)
    if f'content="{GENERATOR}'.encode() not in start:
        raise SlimvoxError(f"`--out` {out} exists and was not written by slimvox report; give another file")


BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


def write_tables(out: Path, title: str, tables: str) -> None:
    """Put tables between the two marks of a page; the text around them is kept.

    Args:
        out: the page; a new one gets a title and the marks.
        title: title of a new page, such as `# Results`.
        tables: tables in Markdown.

    Raises:
        SlimvoxError: if the page has no marks.
    """
    page = out.read_text(encoding="utf-8") if out.is_file() else f"{title}\n\n{BEGIN}\n{END}\n"
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SlimvoxError(f"{out} has no lines {BEGIN} and {END} to put the tables between")
    write_atomically(out, f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}".encode())
