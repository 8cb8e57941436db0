"""Write a report page, or the tables of a page whose text is written by hand, to a file."""

from __future__ import annotations

from pathlib import Path

from slimvox.report.page import GENERATOR
from slimvox.util.errors import SlimvoxError
from slimvox.util.files import write_atomically
from slimvox.util.output_paths import check_output_file


def check_out(out: Path) -> None:
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


def write_report(page: str, out: Path) -> None:
    """Write a page; an earlier report is replaced.

    Raises:
        SlimvoxError: if something else is there, or it cannot be written.
    """
    check_out(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, page.encode())
    except OSError as error:
        raise SlimvoxError(f"`--out` {out} cannot be written: {error.strerror}") from error


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
