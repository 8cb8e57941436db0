"""Tables of audio in columns: a million clips take about 100 MB, and become objects only on request."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt

from slimvox.audio.file_columns import FILE_COLUMNS, Column, Container, FileColumns
from slimvox.audio.recordings import ArchiveMember, DatasetRecording, Recording
from slimvox.audio.sources import AudioClip, AudioSource, SkipReason, absolute

Item = TypeVar("Item", AudioSource, AudioClip)


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
