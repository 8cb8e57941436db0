"""Pages whose tables are written by a command and whose text is written by hand."""

from __future__ import annotations

from pathlib import Path

from slimvox.util.errors import SlimvoxError
from slimvox.util.files import write_atomically

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


def write_tables(out: Path, title: str, tables: str) -> None:
    """Put tables between the two marks of a page; what stands around them is kept.

    Args:
        out: the page; a new one gets a title and the marks.
        title: such as `# Results`.
        tables: Markdown.

    Raises:
        SlimvoxError: if the page has no marks.
    """
    page = out.read_text(encoding="utf-8") if out.is_file() else f"{title}\n\n{BEGIN}\n{END}\n"
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SlimvoxError(f"{out} has no lines {BEGIN} and {END} to put the tables between")
    write_atomically(out, f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}".encode())
