"""Output files that are written whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from slimvox.util.errors import SlimvoxError
from slimvox.util.output_paths import writing


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
    with writing(target):
        directory = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def move_into_place(staging: Path, files: Sequence[Path]) -> None:
    """Move files from a staging directory to their places, all or none; old files that have no successor are removed.

    Old files are moved away first, so that a file is never next to the weights of another.

    Args:
        staging: directory that holds new files of the same names.
        files: their places, in the order in which they are moved.
    """
    replaced, old = staging / "replaced", [file for file in files if file.exists()]
    replaced.mkdir()
    try:
        for file in reversed(old):
            file.replace(replaced / file.name)
        for file in files:
            if (staging / file.name).exists():
                (staging / file.name).replace(file)
    except BaseException:
        for file in files:
            if file not in old:
                file.unlink(missing_ok=True)
            elif (replaced / file.name).exists():
                (replaced / file.name).replace(file)
        raise
