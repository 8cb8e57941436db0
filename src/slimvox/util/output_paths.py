"""Output paths: checks before the work begins, and one sentence for those that cannot be written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slimvox.util.errors import SlimvoxError, reason_of


@contextmanager
def writing(target: object, advice: str = "") -> Iterator[None]:
    """Context that turns an `OSError` into a `SlimvoxError`: the target cannot be written, the reason, the advice."""
    try:
        yield
    except OSError as error:
        raise SlimvoxError(f"{target} cannot be written: {reason_of(error)}{advice}") from error


def check_output_folder(path: Path, name: str) -> None:
    """Raise SlimvoxError if `path` cannot be a folder for results; `name` is its name in the message. It need not
    exist; nothing is created.
    """
    try:
        if path.is_dir():
            _check_writable(path, path, name)
        elif os.path.lexists(path):
            raise SlimvoxError(f"`{name}` must be a directory, but {path} is a file")
        else:
            _check_parent(path, name)
    except (OSError, ValueError) as error:
        raise SlimvoxError(f"`{name}` {path} cannot be written: {reason_of(error)}") from error


def check_output_file(path: Path, name: str) -> None:
    """Raise SlimvoxError if `path` cannot be a file for results; `name` is its name in the message. It need not exist;
    nothing is created.
    """
    try:
        if path.is_dir():
            raise SlimvoxError(f"`{name}` must be a file, but {path} is a directory")
        _check_parent(path, name)
    except (OSError, ValueError) as error:
        raise SlimvoxError(f"`{name}` {path} cannot be written: {reason_of(error)}") from error


def _check_parent(path: Path, name: str) -> None:
    """Raise SlimvoxError if the nearest existing folder above a path does not allow new entries."""
    parent = path.absolute().parent
    while not os.path.lexists(parent) and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir():
        raise SlimvoxError(f"`{name}` {path} cannot be written: {parent} is a file")
    _check_writable(parent, path, name)


def _check_writable(folder: Path, path: Path, name: str) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SlimvoxError(f"`{name}` {path} cannot be written: no permission to write in {folder}")
