"""Files of a table in columns, and the folders, archives and data sets that hold them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from slimvox.audio.recordings import ArchiveMember, AudioFile, DatasetRecording
from slimvox.audio.remote import RemoteFile, is_remote
from slimvox.audio.sources import SkipReason

Column = npt.NDArray[Any]
FILES_AT_A_TIME = 1 << 16
"""Number of files whose columns become Python objects at a time."""
_SEPARATE = -2
_REQUESTS = 16
"""Number of requests to remote servers at a time."""


@dataclass(frozen=True, kw_only=True)
class Container:
    """Place that holds files: a folder, a tar archive or a data set."""

    kind: Literal["folder", "tar", "dataset"]
    location: str
    """Absolute path or URL."""
    handle: Any = field(default=None, compare=False, repr=False)
    """Table of a data set and the name of its column; None for other kinds."""

    def file(self, name: str, start: int, size: int) -> AudioFile:
        """The file of this name."""
        if self.kind == "folder":
            return _file_at(f"{self.location.rstrip('/')}/{name}")
        if self.kind == "tar":
            return ArchiveMember(archive=_file_at(self.location), member=name, start=start, size=size)
        table, column = self.handle
        return DatasetRecording(location=Path(self.location) / name, table=table, row=start, column=column)

    def version(self) -> int:
        """A number that changes when the files change; `_SEPARATE` where each local file has its own."""
        if self.kind == "dataset":
            return _number(str(getattr(self.handle[0], "_fingerprint", "")))
        if is_remote(self.location):
            return 0 if self.kind == "folder" else _number(str(RemoteFile(self.location).version()))
        if self.kind == "folder":
            return _SEPARATE
        with suppress(OSError):
            status = os.stat(self.location)
            return _number(f"{status.st_size} {status.st_mtime_ns}")
        return -1


def _number(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=7).digest(), "little")


def _file_at(location: str) -> AudioFile:
    return RemoteFile(location) if is_remote(location) else Path(location)


@dataclass(frozen=True, kw_only=True, eq=False)
class FileColumns:
    """Distinct files, with one entry per file in each column; -1 stands for unknown values."""

    containers: tuple[Container, ...]
    container: Column
    """Position in `containers`."""
    names: Column
    """Names in the containers, one behind the other (bytes,)."""
    ends: Column
    """End of each name in `names`."""
    start: Column
    """First byte in an archive, or row of a data set."""
    size: Column
    """Bytes."""
    version: Column
    """Number that changes with the content: of a separate file, its time of modification in nanoseconds."""
    key: Column
    """Hash of the location and the name."""
    seconds: Column
    """Duration; NaN where not measured, or where the file cannot be used."""
    rate_hz: Column
    channels: Column
    failures: Mapping[int, tuple[SkipReason, str]] = field(default_factory=dict)
    """Reason and detail for each file that cannot be used."""

    def __len__(self) -> int:
        return len(self.container)

    def __getitem__(self, index: int) -> AudioFile:
        container: Container = self.containers[self.container[index]]
        return container.file(self.name(index), int(self.start[index]), int(self.size[index]))

    def name(self, index: int) -> str:
        """Name of a file in its container."""
        first = int(self.ends[index - 1]) if index else 0
        return os.fsdecode(self.names[first : int(self.ends[index])].tobytes())

    def stamps(self) -> tuple[Column, Column]:
        """Size and version of each file now: of separate files, their time of modification; -1 for missing ones."""
        # Only servers take long to answer.
        with ThreadPoolExecutor(max_workers=_REQUESTS) as executor:
            answers = executor.map(
                Container.version, [each for each in self.containers if is_remote(each.location)]
            )
            versions = np.fromiter(
                (next(answers) if is_remote(each.location) else each.version() for each in self.containers),
                np.int64,
            )
        size, modified = self.size.copy(), versions[self.container]
        folders = [os.fsencode(f"{each.location.rstrip('/')}/") for each in self.containers]
        stat = os.stat
        for first in range(0, len(self), FILES_AT_A_TIME):
            chunk = slice(first, first + FILES_AT_A_TIME)
            is_separate = modified[chunk] == _SEPARATE
            names = itertools.compress(self.encoded_names(chunk.start, chunk.stop), is_separate.tolist())
            containers = self.container[chunk][is_separate].tolist()
            sizes, times = [-1] * len(containers), [-1] * len(containers)
            # A microsecond of each file is spent here and another one by the system.
            for place, (container, name) in enumerate(zip(containers, names, strict=True)):
                try:
                    status = stat(folders[container] + name)
                except (OSError, ValueError):  # ValueError: names that no file can have
                    continue
                sizes[place], times[place] = status.st_size, status.st_mtime_ns
            size[chunk][is_separate], modified[chunk][is_separate] = sizes, times
        return size, modified

    def encoded_names(self, first: int, last: int) -> list[bytes]:
        """Names of consecutive files, as the file system has them."""
        before = int(self.ends[first - 1]) if first else 0
        ends = (self.ends[first:last] - before).tolist()
        names = self.names[before : before + (ends[-1] if ends else 0)].tobytes()
        return [names[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def places(self) -> FileColumns:
        """The files with what tells where they are, and without their measurements."""
        left_out = ("version", "key", "seconds", "rate_hz", "channels")
        empty: dict[str, Any] = {name: np.empty(0, dtype=FILE_COLUMNS[name]) for name in left_out}
        return replace(self, failures={}, **empty)

    def taken(self, chosen: Column) -> FileColumns:
        """Some of the files, by their positions in ascending order."""
        lengths = np.diff(self.ends, prepend=0)
        is_chosen = np.zeros(len(self), dtype=bool)
        is_chosen[chosen] = True
        position = {int(old): new for new, old in enumerate(chosen) if int(old) in self.failures}
        columns: dict[str, Any] = {
            name: getattr(self, name)[chosen] for name in FILE_COLUMNS if name != "ends"
        }
        return replace(
            self,
            names=self.names[np.repeat(is_chosen, lengths)],
            ends=np.cumsum(lengths[chosen], dtype=np.int64),
            failures={position[old]: why for old, why in self.failures.items() if old in position},
            **columns,
        )


FILE_COLUMNS: Mapping[str, type] = {
    "container": np.int32,
    "ends": np.int64,
    "start": np.int64,
    "size": np.int64,
    "version": np.int64,
    "key": np.uint64,
    "seconds": np.float64,
    "rate_hz": np.int32,
    "channels": np.int16,
}
