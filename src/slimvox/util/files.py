"""Atomic writing: a file is either the old or the new one, even if the process is killed or the power fails."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

PREFIX, SUFFIX = ".slimvox-", ".tmp"
"""Beginning and end of the names of temporary files."""
_numbers = itertools.count()
_swept: set[str] = set()
"""Folders in which this process has looked for leftovers."""


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file for writing that replaces `path` when the block is left without an error.

    Temporary files that killed processes left in the same folder are removed as well.

    Raises:
        OSError: if the disk is full or the folder cannot be written, with the path in `filename`; `path` is then
            unchanged.
    """
    if (folder := os.path.abspath(path.parent)) not in _swept:
        sweep_temporaries(path.parent)
        _swept.add(folder)
    temporary = path.with_name(f"{PREFIX}{os.getpid()}-{next(_numbers)}{SUFFIX}")
    try:
        with temporary.open("xb") as file:
            _lock(file)
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(temporary)):
            # A full disk gives an error without a file name, and the name of the temporary file would not help.
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file atomically: it is either the old or the new one, even if the power fails.

    Raises:
        OSError: as for `atomic_file`.
    """
    with atomic_file(path) as file:
        file.write(content)


def is_temporary(name: str) -> bool:
    """True if this is the name of a temporary file of `atomic_file`."""
    return name.startswith(PREFIX) and name.endswith(SUFFIX)


def sweep_temporaries(folder: Path) -> None:
    """Remove the temporary files of `atomic_file` that killed processes left in a folder.

    Files that a process is still writing are locked by it, and are kept.
    """
    with contextlib.suppress(OSError):
        for path in [Path(entry.path) for entry in os.scandir(folder) if is_temporary(entry.name)]:
            with contextlib.suppress(OSError), path.open("r+b") as file:
                if _lock(file):
                    path.unlink(missing_ok=True)


def _lock(file: IO[bytes]) -> bool:
    """Lock a file until it is closed; False if locks are not supported or another process holds it."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True
