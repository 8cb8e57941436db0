"""Index of audio, which is found and measured once, and kept in the user's cache until the audio changes."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from slimvox.audio.file_columns import FILE_COLUMNS, Container, FileColumns
from slimvox.audio.find import (
    AudioInput,
    BareInput,
    as_sources,
    list_source,
    numbered,
    source_name,
    source_place,
    without_repetitions,
)
from slimvox.audio.remote import RemoteFile, is_remote
from slimvox.audio.scan import SCAN_THREADS, AudioScan, Progress, measured_files, usable
from slimvox.audio.skips import SkipCounter
from slimvox.audio.sources import AudioSource
from slimvox.audio.table import STRETCH_COLUMNS, AudioTable
from slimvox.util.environment import user_cache
from slimvox.util.files import atomic_file

logger = logging.getLogger("slimvox.audio")

_FORMAT = 1
_FILES_PER_SAVE = 1 << 14
_SECONDS_PER_SAVE = 120.0
_CLOCK_NS = 20_000_000
"""Resolution of file times: files that changed within this time before being listed may have changed again unseen."""
_UNUSED_DAYS = 90.0


def index_audio(
    sources: Sequence[AudioInput],
    *,
    min_seconds: float,
    threads: int = SCAN_THREADS,
    skips: SkipCounter | None = None,
) -> AudioScan:
    """Find and measure audio, or read the earlier result from the user's cache.

    The cache holds for each source the places, durations, sample rates and channels of its files, as columns. It is
    reused if the sizes and times of modification of all files and folders are the same; if some differ, only these are
    measured. Of several processes, one measures and the others wait.

    Args:
        sources: sources, as for `slimvox.audio.find_audio`.
        min_seconds: minimum duration of a stretch of audio.
        threads: number of files that are open at a time.
        skips: counter of the audio that is left out.

    Raises:
        SlimvoxError: as for `find_audio` and `scan_audio`.
    """
    sources = as_sources(sources)
    tables = [_indexed(source, number, threads) for source, number in numbered(sources)]
    table, origin = without_repetitions(sources, tables)
    return usable(table, min_seconds=min_seconds, skips=skips, sources=origin)


def _indexed(source: BareInput, number: int, threads: int) -> AudioTable[AudioSource]:
    """Measured table of a source."""
    path = user_cache() / "audio-index" / f"{_key(source, number)}.npz"
    with _locked(path, source_name(source)) as is_cached:
        known = _read(path) if is_cached else None
        if known is not None and _is_current(*known):
            table, watched = known
        else:
            table, watched = _listed(source, number)
            if known is not None:
                table = replace(table, files=_with_known(table.files, known[0].files))
        unmeasured = int(np.isnan(table.files.seconds).sum())
        with _bar(source, unmeasured) as on_progress:
            saved = time.monotonic()
            for files in measured_files(table.files, threads, on_progress, at_once=_FILES_PER_SAVE):
                table = replace(table, files=files)
                if time.monotonic() - saved > _SECONDS_PER_SAVE:
                    # After an interruption, files measured so far are not measured again.
                    _write(path, table, {}, is_cached)
                    saved = time.monotonic()
        is_new = known is None or watched is not known[1]
        if is_new or np.isnan(table.files.seconds).sum() < unmeasured:
            _write(path, table, watched, is_cached)
        return table


def _listed(source: BareInput, number: int) -> tuple[AudioTable[AudioSource], dict[str, list[int]]]:
    """A source that was not measured yet, with the sizes and times of the files that determine it."""
    now = time.time_ns() - _CLOCK_NS
    table, names = list_source(source, number)
    watched = {name: _stamp(name) for name in names}
    size, version = table.files.stamps()
    version[version > now] = -1
    watched = {name: stamp if stamp[1] < now else [-1, -1] for name, stamp in watched.items()}
    return replace(table, files=replace(table.files, size=size, version=version)), watched


def _key(source: BareInput, number: int) -> str:
    name = source_place(source) or f"object {source_name(source)} {number}"
    return sha256(f"{_FORMAT}\n{name}".encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _stamp(name: str) -> list[int]:
    """Size and time of modification of a file or folder now; of a remote file, its version."""
    if is_remote(name):
        return list(RemoteFile(name).version()) if RemoteFile(name).suffix else [0, 0]
    with contextlib.suppress(OSError, ValueError):
        status = os.stat(name)
        return [0 if os.path.isdir(name) else status.st_size, status.st_mtime_ns]
    return [-1, -1]


def _is_current(table: AudioTable[AudioSource], watched: dict[str, list[int]]) -> bool:
    if not watched or any(_stamp(name) != stamp for name, stamp in watched.items()):
        return False
    size, version = table.files.stamps()
    return bool((size == table.files.size).all() and (version == table.files.version).all())


def _with_known(files: FileColumns, known: FileColumns) -> FileColumns:
    """A table with the earlier measurements of files that did not change."""
    order = np.argsort(known.key)
    place = np.minimum(np.searchsorted(known.key[order], files.key), len(order) - 1)
    found = order[place]
    same = known.key[found] == files.key
    for name in ("size", "version"):
        same &= getattr(known, name)[found] == getattr(files, name)
    same &= known.version[found] != -1
    return replace(
        files,
        **{
            name: np.where(same, getattr(known, name)[found], getattr(files, name))
            for name in ("seconds", "rate_hz", "channels")
        },
    )


def _read(path: Path) -> tuple[AudioTable[AudioSource], dict[str, list[int]]] | None:
    """An index and the files it depends on; None if there is none, or it is damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            about = json.loads(content["about"].tobytes())
            containers = [
                Container(kind=kind, location=os.fsdecode(location.encode("utf-8", "surrogateescape")))
                for kind, location in about["containers"]
            ]
            columns: dict[str, Any] = {name: content[name] for name in (*FILE_COLUMNS, "names")}
            table = AudioTable(
                item=AudioSource,
                files=FileColumns(containers=tuple(containers), **columns),
                named=int(about["named"]),
                **{name: content[f"stretch_{name}"] for name in STRETCH_COLUMNS},
            )
        # Unusable files are tried again: permissions or installed decoders may have changed.
        os.utime(path)
    except FileNotFoundError:
        return None
    except Exception as error:  # those of zipfile, numpy and json
        logger.warning("The index `%s` is damaged and is rebuilt: %s.", path, error)
        return None
    is_lasting = not any(container.kind == "dataset" for container in containers)
    return table, about["watched"] if is_lasting else {}


def _write(
    path: Path, table: AudioTable[AudioSource], watched: dict[str, list[int]], is_cached: bool
) -> None:
    if not is_cached:
        return
    about = {
        "containers": [[each.kind, each.location] for each in table.files.containers],
        "named": table.named,
        "watched": watched,
    }
    columns: dict[str, Any] = {name: getattr(table.files, name) for name in (*FILE_COLUMNS, "names")}
    columns |= {f"stretch_{name}": getattr(table, name) for name in STRETCH_COLUMNS}
    try:
        with atomic_file(path) as file:
            np.savez(file, about=np.frombuffer(json.dumps(about).encode(), dtype=np.uint8), **columns)
        for other in path.parent.glob("*.npz"):
            if time.time() - other.stat().st_mtime > _UNUSED_DAYS * 86_400:
                other.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("The index of the audio cannot be saved: %s.", error)


@contextlib.contextmanager
def _locked(path: Path, name: str) -> Iterator[bool]:
    """Hold the lock of an index; False if there is no cache."""
    lock = FileLock(path.with_suffix(".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=1.0)
        except Timeout:
            logger.warning("Another process measures `%s`: waiting for it.", name)
            lock.acquire()
    except (OSError, NotImplementedError) as error:
        logger.warning("The index of the audio cannot be saved: %s.", error)
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@contextlib.contextmanager
def _bar(source: BareInput, files: int) -> Iterator[Progress]:
    """A progress bar on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    shown = console.is_terminal and sys.stderr.isatty() and files > 1000
    with ProgressBar(*columns, console=console, disable=not shown, transient=True) as bar:
        task = bar.add_task(f"measuring {source_name(source)}", total=files)
        yield lambda done, _: bar.update(task, completed=done)
