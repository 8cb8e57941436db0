"""Output files that are written whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slimvox.util.errors import SlimvoxError


def check_target(target: Path, *, force: bool) -> None:
    """Raise SlimvoxError if a file cannot be written, or exists and `force` is not given."""
    if target.is_dir():
        raise SlimvoxError(f"{target} is a directory; `out` names a file")
    if target.exists() and not force:
        raise SlimvoxError(f"{target} exists already; name another file, or replace it with --force")
    if not target.parent.is_dir():
        raise SlimvoxError(f"there is no directory {target.parent} to write {target.name} in")


@contextmanager
def staging_directory(target: Path) -> Iterator[Path]:
    """A hidden directory beside `target`, which is always removed at the end.

    Raises:
        SlimvoxError: if it cannot be created.
    """
    try:
        directory = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise SlimvoxError(f"{target} cannot be written: {error.strerror or error}") from error
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def move_into_place(staged: Path, target: Path) -> None:
    """Move a file to its place, after its file of external data; an old one that it does not need is removed."""
    companion = companion_file(staged)
    if companion.exists():
        companion.replace(companion_file(target))
        staged.replace(target)
    else:
        staged.replace(target)
        companion_file(target).unlink(missing_ok=True)


def companion_file(path: Path) -> Path:
    """File in which a format keeps weights that are too large for a single file."""
    return path.with_name(f"{path.name}.data")
