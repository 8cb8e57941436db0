"""Location of a corpus, and instructions for obtaining it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from slimvox.audio.sources import read_text
from slimvox.util.errors import ColumnError, SlimvoxError


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A data set as it is distributed."""

    name: str
    folder: str
    """Usual name of its folder."""
    marker: str
    """A path in that folder by which the corpus is recognised."""
    download: str
    """Download instructions."""
    layout: str
    """Expected layout of the folder, one path per line."""

    def find(self, data: Path) -> Path:
        """The folder of the corpus: the one with its name in `data`, or `data` itself.

        Raises:
            SlimvoxError: if it is neither.
        """
        for folder in (data / self.folder, data):
            if (folder / self.marker).exists():
                return folder
        raise self.missing(data / self.folder / self.marker)

    def need(self, path: Path) -> Path:
        """A path in the corpus, which must exist.

        Raises:
            SlimvoxError: if it is not.
        """
        if not path.exists():
            raise self.missing(path)
        return path

    def lines(self, path: Path) -> list[str]:
        """The lines of a file of the corpus that are not empty, without spaces at their ends.

        Raises:
            SlimvoxError: if there is no such file, or it cannot be read.
        """
        return [line.strip() for line in read_text(self.need(path)).splitlines() if line.strip()]

    def fields(self, path: Path, count: int) -> Iterator[list[str]]:
        """The lines of a file split at spaces; the last of the `count` fields takes the rest of the line.

        Raises:
            SlimvoxError: if a line has fewer fields.
        """
        for number, line in enumerate(self.lines(path), 1):
            parts = line.split(maxsplit=count - 1)
            if len(parts) < count:
                raise SlimvoxError(
                    f"{self.name}: line {number} of {path} must have {count} fields, but is {line!r}"
                )
            yield parts

    def table(self, path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
        """The rows of a CSV file of the corpus.

        Raises:
            SlimvoxError: if there is no such file, or it lacks one of the columns.
        """
        reader = csv.DictReader(io.StringIO(read_text(self.need(path))))
        absent = [column for column in columns if column not in (reader.fieldnames or ())]
        if absent:
            raise ColumnError(f"{self.name}: {path} has no column `{absent[0]}`")
        for row in reader:
            yield {column: (row[column] or "").strip() for column in columns}

    def missing(self, path: Path) -> SlimvoxError:
        """The error for a missing path."""
        lines = "\n".join(f"    {self.folder}/{line}" for line in self.layout.strip().splitlines())
        return SlimvoxError(
            f"{self.name}: there is no {path}. {self.download}, so that it looks like this:\n{lines}"
        )
