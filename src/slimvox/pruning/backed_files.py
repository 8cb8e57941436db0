"""Files with a checksum, each with a second copy that is read if the first is damaged."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from slimvox.pruning.checked_files import DamagedFileError, write_checked_json, write_checked_state
from slimvox.util.errors import reason_of
from slimvox.util.files import atomic_file

BACKUP = "backup"
"""Folder of the state before the last one, and of a second copy of every other file."""
Content = TypeVar("Content")
logger = logging.getLogger("slimvox.pruning")


@dataclass(frozen=True, kw_only=True)
class BackedFiles:
    """Files of a folder, with their copies in a folder `backup` of it."""

    folder: Path

    def places(self, name: str) -> tuple[Path, Path]:
        """Paths of a file and of its copy."""
        return self.folder / name, self.folder / BACKUP / name

    def load(
        self, name: str, read: Callable[[Path], Content], *, copy_is_older: bool = False
    ) -> Content | None:
        """Read a file, or its copy if it is damaged; None if there is neither.

        A damaged file is replaced by its copy, unless the copy is of an older state.

        Raises:
            DamagedFileError: if what there is is damaged.
        """
        damaged: list[Path] = []
        for path in self.places(name):
            try:
                content = read(path)
            except FileNotFoundError:
                continue
            except DamagedFileError:
                damaged.append(path)
                continue
            if damaged:
                logger.warning("%s is damaged; the run resumes from %s", damaged[0], path)
                damaged[0].unlink(missing_ok=True)
                if not copy_is_older:
                    with contextlib.suppress(OSError):
                        copy_file(path, damaged[0])
            return content
        if damaged:
            raise DamagedFileError(damaged[0])
        return None

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON object twice.

        Raises:
            OSError: if it cannot be written.
        """
        path, copy = self.places(name)
        write_checked_json(path, content)
        copy.parent.mkdir(exist_ok=True)
        write_checked_json(copy, content)

    def write_state(self, name: str, state: Mapping[str, Any]) -> None:
        """Write a nested dictionary of tensors and plain values; the file before it becomes the copy.

        Raises:
            OSError: if it cannot be written.
        """
        path, copy = self.places(name)
        try:
            write_checked_state(path, state, before=copy)
        except RuntimeError as error:
            # torch's writer replaces the file's error by its own.
            cause = error.__context__
            raise OSError(reason_of(cause if isinstance(cause, OSError) else error)) from error

    def copy(self, name: str) -> None:
        """Make the copy of a file that is like it."""
        copy_file(*self.places(name))

    def remove(self, name: str) -> None:
        """Remove a file and its copy."""
        for path in self.places(name):
            path.unlink(missing_ok=True)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, completely or not at all; the target's folder is made.

    Raises:
        OSError: if it cannot be written.
    """
    target.parent.mkdir(exist_ok=True)
    with source.open("rb") as reader, atomic_file(target) as writer:
        shutil.copyfileobj(reader, writer)
