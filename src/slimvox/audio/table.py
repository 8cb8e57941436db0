"""Tables of audio in columns: a million clips take about 100 MB, and become objects only on request."""

from __future__ import annotations

import itertools
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, overload

import numpy as np
import numpy.typing as npt

from slimvox.audio.recordings import ArchiveMember, AudioFile, DatasetRecording, Recording
from slimvox.audio.remote import RemoteFile, is_remote
from slimvox.audio.sources import AudioClip, AudioSource, SkipReason, absolute

Column = npt.NDArray[Any]
_SEPARATE = -2
FILES_AT_A_TIME = 1 << 16
"""Number of files whose columns become Python objects at a time."""
_REQUESTS = 16
"""Number of requests to remote servers at a time."""
Item = TypeVar("Item", AudioSource, AudioClip)


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


@dataclass(frozen=True, kw_only=True, eq=False)
class AudioTable(Sequence[Item], Generic[Item]):
    """Stretches of files, as a sequence of `AudioSource` or, once their lengths are known, of `AudioClip`."""

    item: type[Item]
    files: FileColumns
    file: Column
    """Position in `files` (stretches,)."""
    offset_seconds: Column
    seconds: Column
    """NaN for the rest of the file."""
    channel: Column
    """-1 for the mean of all."""
    named: int = 0
    """Number of stretches that the source names, repetitions included."""

    def __len__(self) -> int:
        return len(self.file)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> AudioTable[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | AudioTable[Item]:
        if isinstance(index, slice):
            return self.taken(np.arange(len(self))[index])
        seconds, channel = float(self.seconds[index]), int(self.channel[index])
        return self.item(
            path=self.files[int(self.file[index])],
            offset_seconds=float(self.offset_seconds[index]),
            seconds=None if np.isnan(seconds) else seconds,  # type: ignore[arg-type]
            channel=None if channel < 0 else channel,
        )

    def __iter__(self) -> Iterator[Item]:
        return (self[index] for index in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(_equal, self, other))

    __hash__ = None  # type: ignore[assignment]

    def taken(self, chosen: Column) -> AudioTable[Item]:
        """Some of the stretches, by their positions; the files stay the same object."""
        return replace(self, **{name: getattr(self, name)[chosen] for name in STRETCH_COLUMNS})


def _equal(one: object, other: object) -> bool:
    return one == other


STRETCH_COLUMNS: Mapping[str, type] = {
    "file": np.int32,
    "offset_seconds": np.float64,
    "seconds": np.float64,
    "channel": np.int16,
}


class TableBuilder:
    """Collects stretches of audio for a table."""

    def __init__(self) -> None:
        self._containers: dict[Container, int] = {}
        self._hashers: list[Any] = []
        self._folders: dict[str, int] = {}
        self._names = bytearray()
        self._columns: dict[str, array[Any]] = {
            name: array(code) for name, code in zip(_BUILT, "iqqqQiddh", strict=True)
        }
        self._last_key = -1

    def __len__(self) -> int:
        return len(self._columns["file"])

    def add(self, source: AudioSource) -> None:
        """Add a stretch."""
        path = source.path
        if isinstance(path, ArchiveMember):
            container = self.container(Container(kind="tar", location=absolute(path.archive)))
            self.add_file(container, path.member, path.start, path.size)
        elif isinstance(path, DatasetRecording):
            location, handle = str(path.location.parent), (path.table, path.column)
            container = self.container(Container(kind="dataset", location=location, handle=handle))
            self.add_file(container, path.location.name, path.row)
        elif isinstance(path, Recording):
            folder, _, name = os.fspath(path).rpartition("/")
            self.add_file(self.container(Container(kind="folder", location=folder)), name)
        else:
            folder, name = os.path.split(path)
            if name in ("", ".", ".."):
                folder, name = os.path.split(os.path.abspath(path))
            if folder not in self._folders:
                container = self.container(Container(kind="folder", location=os.path.abspath(folder)))
                self._folders[folder] = container
            self.add_file(self._folders[folder], name)
        self.add_stretch(source.offset_seconds, source.seconds, source.channel)

    def container(self, container: Container) -> int:
        """Number of a container."""
        if container not in self._containers:
            self._containers[container] = len(self._containers)
            start = f"{container.kind}\0{container.location.rstrip('/')}/"
            self._hashers.append(blake2b(os.fsencode(start), digest_size=8))
        return self._containers[container]

    def add_file(self, container: int, name: str, start: int = -1, size: int = -1) -> None:
        """Add a file, unless it is the one that was added last."""
        encoded = os.fsencode(name)
        hasher = self._hashers[container].copy()
        hasher.update(encoded)
        key = int.from_bytes(hasher.digest(), "little")
        if key == self._last_key:
            return
        self._last_key = key
        self._names += encoded
        columns = self._columns
        columns["container"].append(container)
        columns["ends"].append(len(self._names))
        columns["start"].append(start)
        columns["size"].append(size)
        columns["key"].append(key)

    def add_stretch(
        self, offset_seconds: float = 0.0, seconds: float | None = None, channel: int | None = None
    ) -> None:
        """Add a stretch of the last file."""
        columns = self._columns
        columns["file"].append(len(columns["key"]) - 1)
        columns["offset_seconds"].append(offset_seconds)
        columns["seconds"].append(np.nan if seconds is None else seconds)
        columns["channel"].append(-1 if channel is None else channel)

    def table(self) -> AudioTable[AudioSource]:
        """The table of all stretches, each once."""
        files = len(self._columns["key"])
        columns = {
            name: np.frombuffer(column, dtype=column.typecode) for name, column in self._columns.items()
        }
        unmeasured: dict[str, Any] = {
            "version": np.full(files, -1, dtype=np.int64),
            "seconds": np.full(files, np.nan),
            "rate_hz": np.full(files, -1, dtype=np.int32),
            "channels": np.full(files, -1, dtype=np.int16),
        }
        table = AudioTable(
            item=AudioSource,
            files=FileColumns(
                containers=tuple(self._containers),
                names=np.frombuffer(self._names, dtype=np.uint8),
                **{name: columns[name] for name in _BUILT[:5]},  # type: ignore[arg-type]
                **unmeasured,
            ),
            **{name: columns[name] for name in _BUILT[5:]},  # type: ignore[arg-type]
        )
        return replace(joined([table])[0], named=len(table))


def as_table(sources: Sequence[AudioSource]) -> AudioTable[AudioSource]:
    """The sources in columns, each once."""
    if isinstance(sources, AudioTable):
        return sources
    builder = TableBuilder()
    for source in sources:
        builder.add(source)
    return builder.table()


_BUILT = ("container", "ends", "start", "size", "key", "file", "offset_seconds", "seconds", "channel")


def joined(
    tables: Sequence[AudioTable[AudioSource]],
) -> tuple[AudioTable[AudioSource], npt.NDArray[np.integer]]:
    """Join tables to one in which each file and each stretch comes once, where it comes first.

    Returns:
        The table, and the number of the table that each stretch is from (stretches,).
    """
    origin = np.repeat(np.arange(len(tables), dtype=np.int16), [len(table) for table in tables])
    table = tables[0] if len(tables) == 1 else _concatenated(tables)
    files = table.files
    ordered = np.sort(files.key)
    if (ordered[1:] == ordered[:-1]).any():
        _, first, merged = np.unique(files.key, return_index=True, return_inverse=True)
        order = np.argsort(first)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        table = replace(
            table, files=files.taken(first[order]), file=rank[merged][table.file].astype(np.int32)
        )
    if not len(table) or np.bincount(table.file).max() == 1:
        return table, origin
    columns = [np.nan_to_num(table.seconds, nan=-1.0), table.offset_seconds, table.channel, table.file]
    order = np.lexsort(columns)
    same = np.ones(len(order) - 1, dtype=bool)
    for column in columns:
        same &= column[order][1:] == column[order][:-1]
    # The sort is stable: the first of equal stretches is the one that came first.
    chosen = np.sort(np.concatenate([order[:1], order[1:][~same]]))
    return (table, origin) if len(chosen) == len(table) else (table.taken(chosen), origin[chosen])


def _concatenated(tables: Sequence[AudioTable[AudioSource]]) -> AudioTable[AudioSource]:
    parts = [table.files for table in tables]
    before = dict.fromkeys(("container", "ends"), 0)
    shifted: dict[str, list[Column]] = {name: [] for name in FILE_COLUMNS}
    failures: dict[int, tuple[SkipReason, str]] = {}
    firsts = np.cumsum([0, *(len(part) for part in parts)])
    for first, part in zip(firsts.tolist(), parts, strict=False):
        for name in FILE_COLUMNS:
            shifted[name].append(
                getattr(part, name) + before[name] if name in before else getattr(part, name)
            )
        failures.update({first + index: why for index, why in part.failures.items()})
        before["container"] += len(part.containers)
        before["ends"] += len(part.names)
    return AudioTable(
        item=AudioSource,
        files=FileColumns(
            containers=tuple(container for part in parts for container in part.containers),
            names=np.concatenate([part.names for part in parts]),
            failures=failures,
            **{name: np.concatenate(columns).astype(FILE_COLUMNS[name]) for name, columns in shifted.items()},
        ),
        file=np.concatenate(
            [table.file + first for first, table in zip(firsts.tolist(), tables, strict=False)]
        ).astype(np.int32),
        offset_seconds=np.concatenate([table.offset_seconds for table in tables]),
        seconds=np.concatenate([table.seconds for table in tables]),
        channel=np.concatenate([table.channel for table in tables]),
    )
