"""Tables in text files, TSV and CSV, row by row: every line of the file is a row, or an error."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator

from slimvox.audio.columns import PATH_COLUMNS, normalized
from slimvox.audio.remote import Place
from slimvox.audio.sources import AUDIO_EXTENSIONS
from slimvox.util.errors import SlimvoxError


class PlainTSV(csv.excel_tab):
    """Tab-separated text has no quoting: a lone quotation mark in a transcript must not swallow rows."""

    quoting = csv.QUOTE_NONE


class StrictCSV(csv.excel):
    """Characters behind a closing quotation mark, and a mark that is never closed, are errors."""

    strict = True


def read_rows(
    path: Place, text: str, *, is_tsv: bool, name: Callable[[str | None], str] = normalized
) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """Read a table with a header.

    Args:
        path: named in errors.
        text: the content of the file.
        is_tsv: separated by tabs and without quoting; otherwise by commas.
        name: turns the header's names into the columns.

    Returns:
        The columns, and for each row that is not blank the number of its first line and its values, stripped; those
        that the line lacks are empty.

    Raises:
        SlimvoxError: a row with more values than columns, or with a quotation mark that swallows others; while
            iterating.
    """
    lines = io.StringIO(text, newline="").readlines()
    reader = csv.reader(iter(lines), PlainTSV if is_tsv else StrictCSV)
    try:
        columns = [name(cell) for cell in next(reader, [])]
    except csv.Error as error:
        raise _unreadable(path, 1, error) from error
    return columns, _rows(path, reader, lines, columns)


def _rows(
    path: Place, reader: Iterator[list[str]], lines: list[str], columns: list[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    while True:
        before = reader.line_num  # type: ignore[attr-defined]
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise _unreadable(path, before + 1, error) from error
        if cells is None:
            return
        after = reader.line_num  # type: ignore[attr-defined]
        if after > before + 1 and _are_rows(lines[before:after], columns):
            raise SlimvoxError(
                f"Line {before + 1} of `{path}` has a quotation mark that is not closed, and rows would be lost: write "
                "it twice within a quoted value, or remove it."
            )
        if not cells or (len(cells) == 1 and not cells[0].strip()):
            continue
        if len(cells) > len(columns) and any(cell.strip() for cell in cells[len(columns) :]):
            raise SlimvoxError(
                f"Line {before + 1} of `{path}` must have {len(columns)} values, as the header has columns, but has "
                f"{len(cells)}: put values that hold the separator in quotation marks."
            )
        values = [cell.strip() for cell in cells[: len(columns)]]
        values += [""] * (len(columns) - len(values))
        yield before + 1, {column: value for column, value in zip(columns, values, strict=True) if column}


def _are_rows(lines: list[str], columns: list[str]) -> bool:
    """True if the first line of a quoted value, and another of its lines, look like separate rows."""
    place = next((columns.index(column) for column in PATH_COLUMNS if column in columns), None)

    def is_row(line: str) -> bool:
        cells = line.rstrip("\r\n").split(",")
        if len(cells) != len(columns):
            return False
        return place is None or cells[place].strip().strip('"').lower().endswith(AUDIO_EXTENSIONS)

    return is_row(lines[0]) and any(is_row(line) for line in lines[1:])


def _unreadable(path: Place, line: int, error: csv.Error) -> SlimvoxError:
    if "unexpected end" in str(error) or "expected after" in str(error):
        return SlimvoxError(
            f"Line {line} of `{path}` has a quotation mark that is not closed: write it twice within a quoted value, "
            "or remove it."
        )
    return SlimvoxError(f"Line {line} of `{path}` cannot be read: {error}.")
