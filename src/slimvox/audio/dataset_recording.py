"""A recording that is not a file of its own, but a row of a Hugging Face data set."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetRecording(os.PathLike[str]):
    """One recording in a data set; it stands where the path of an audio file does."""

    location: Path
    """Data set, split and name of the recording, as a path; no file is there."""
    table: Any = field(repr=False, compare=False)
    """A `datasets.Dataset` in arrow format: its rows come as they are stored."""
    row: int
    column: str

    def __fspath__(self) -> str:
        return str(self.location)

    def __str__(self) -> str:
        return str(self.location)

    @property
    def name(self) -> str:
        """The name that the recording's file had."""
        return self.location.name

    def open(self) -> BinaryIO:
        """The bytes of the recording's file; only what is read of them is fetched from the disk.

        Raises:
            FileNotFoundError: there are none.
        """
        import pyarrow

        cell = self.table[self.row][self.column].chunk(0)
        content = cell.field("bytes")[0]
        if not cell[0].is_valid or not content.is_valid or not len(content.as_buffer()):
            raise FileNotFoundError("its row holds no audio")
        return cast(BinaryIO, pyarrow.BufferReader(content.as_buffer()))
