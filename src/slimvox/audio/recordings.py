"""Recordings that are not files of their own: rows of data sets and members of archives."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal, TypeAlias, cast


class Recording(os.PathLike[str]):
    """Audio that is opened by a method; it is used in place of the path of an audio file."""

    absence: ClassVar[Literal["missing", "empty"]] = "missing"
    """Reason for skipping it if `open` raises `FileNotFoundError`."""

    __slots__ = ()

    def __fspath__(self) -> str:
        raise NotImplementedError

    def __str__(self) -> str:
        return self.__fspath__()

    @property
    def name(self) -> str:
        """Name of the recording's file."""
        return self.__fspath__().rpartition("/")[2]

    def open(self) -> BinaryIO:
        """The bytes of the recording, seekable; only those that are read are fetched.

        Raises:
            FileNotFoundError: if there are none.
            OSError: if they cannot be read.
        """
        raise NotImplementedError


AudioFile: TypeAlias = Path | Recording
"""Location of audio: a separate file, or one of the kinds of recordings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetRecording(Recording):
    """A row of a Hugging Face data set."""

    location: Path
    """Data set, split and name of the recording, as a path that does not exist."""
    table: Any = field(repr=False, compare=False)
    """A `datasets.Dataset` in arrow format, which returns rows as stored."""
    row: int
    column: str
    absence: ClassVar[Literal["missing", "empty"]] = "empty"

    def __fspath__(self) -> str:
        return str(self.location)

    @property
    def name(self) -> str:
        """Name that the recording's file had."""
        return self.location.name

    def open(self) -> BinaryIO:
        """The bytes of the row."""
        import pyarrow

        cell = self.table[self.row][self.column].chunk(0)
        content = cell.field("bytes")[0]
        if not cell[0].is_valid or not content.is_valid or not len(content.as_buffer()):
            raise FileNotFoundError("its row holds no audio")
        return cast(BinaryIO, pyarrow.BufferReader(content.as_buffer()))


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchiveMember(Recording):
    """A member of a tar archive that is not compressed, read in place."""

    archive: AudioFile
    member: str
    start: int
    """First byte of its content in the archive; negative if the archive has no such member."""
    size: int
    """Number of bytes."""

    def __fspath__(self) -> str:
        return f"{os.fspath(self.archive)}/{self.member}"

    def open(self) -> BinaryIO:
        """The bytes of the member."""
        if self.start < 0:
            raise FileNotFoundError("its shard has no such member")
        file = self.archive.open("rb") if isinstance(self.archive, Path) else self.archive.open()
        if file.seek(0, io.SEEK_END) < self.start + self.size:
            file.close()
            raise OSError("its shard ends within it")
        return cast(BinaryIO, io.BufferedReader(Section(file, self.start, self.size)))


class PartedFile(io.RawIOBase):
    """A file assembled from bytes in several places; seekable, read only."""

    def __init__(self, size: int) -> None:
        self._size, self._at = size, 0

    def read_part(self, at: int, count: int) -> bytes:
        """At least one byte, and at most `count`, from a position within the file onwards."""
        raise NotImplementedError

    def readable(self) -> bool:
        """Always True."""
        return True

    def seekable(self) -> bool:
        """Always True."""
        return True

    def tell(self) -> int:
        """Position in the file."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position in the file."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer from the current position on, and return the number of bytes."""
        view = memoryview(buffer).cast("B")[: max(0, self._size - self._at)]
        part = self.read_part(self._at, len(view)) if len(view) else b""
        view[: len(part)] = part
        self._at += len(part)
        return len(part)


class Section(PartedFile):
    """Part of a file as a separate file."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        super().__init__(size)
        self._file, self._start = file, start

    def read_part(self, at: int, count: int) -> bytes:
        """Read from the file."""
        self._file.seek(self._start + at)
        return self._file.read(count)

    def close(self) -> None:
        """Close the file too."""
        self._file.close()
        super().close()
