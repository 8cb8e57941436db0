"""Room in the folder of cached features, which several processes may use at once."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path

PARTIAL = ".partial-"
"""Prefix of the names of folders that are being written or removed."""
STALE_SECONDS = 24 * 3600
"""Time without changes after which a partial folder is considered left over from a crash."""


def make_room(directory: Path, needed: int, *, max_bytes: int) -> None:
    """Remove the least recently used folders until `needed` bytes fit in addition to the others.

    Other processes may do the same at the same time.

    Args:
        directory: folder of `KEY/features.bin` and `KEY/index.json`; the modification time of the index is the time of
            last use.
        needed: bytes.
        max_bytes: of all features together, `needed` among them.
    """
    folders = []
    for folder in directory.iterdir():
        try:
            used = (folder / "index.json").stat().st_mtime
            size = (folder / "features.bin").stat().st_size
        except OSError:
            continue  # not complete, or removed in between
        if not folder.name.startswith(PARTIAL):
            folders.append((used, folder, size))
    total = sum(size for _, _, size in folders) + needed
    for _, folder, size in sorted(folders):
        if total <= max_bytes:
            return
        discard(folder)
        total -= size


def discard(folder: Path) -> None:
    """Remove a folder of features; renamed first, so that no process opens an incomplete one."""
    removed = folder.with_name(f"{PARTIAL}{folder.name}-removed-{os.getpid()}")
    with contextlib.suppress(OSError):
        folder.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)


def remove_stale(directory: Path) -> None:
    """Remove partial folders that crashes left behind."""
    for path in directory.glob(f"{PARTIAL}*"):
        with contextlib.suppress(FileNotFoundError):
            # The time of the folder does not change while a file in it grows.
            changed = max(each.stat().st_mtime for each in (path, *path.iterdir()))
            if time.time() - changed > STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
