"""Fingerprints of an evaluation's data: of the tables, and of the audio files."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from slimvox.evaluation.examples import ABSENT_AT_DEFAULT, ExampleSet, Recording


def describe_data(folds: Sequence[ExampleSet[Any]], root: Path) -> str:
    """A hash of all examples that does not depend on the location of the data folder."""
    described = json.dumps([_plain(fold, str(root), root.anchor) for fold in folds], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()


def describe_audio(recordings: Iterable[Recording], root: Path) -> str:
    """A hash of the names and sizes of all files, which does not depend on the location of the data folder."""
    paths = {clip.path for recording in recordings for clip in recording.clips}
    sizes = {_plain(path, str(root), root.anchor): _size(path) for path in paths}
    return hashlib.sha256(json.dumps(sizes, sort_keys=True).encode()).hexdigest()


def _size(path: Path) -> int | None:
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return None


@functools.cache
def _described_fields(kind: type) -> list[tuple[str, bool, Any]]:
    """Name of each field of a dataclass, whether it is left out at its default, and the default."""
    return [
        (field.name, bool(field.metadata.get(ABSENT_AT_DEFAULT)), field.default)
        for field in dataclasses.fields(kind)
    ]


def _plain(value: Any, root: str, anchor: str) -> Any:
    """Examples as JSON; paths relative to the data folder, so that moving the folder changes nothing."""
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, Path):
        # The same as `relative_to` in a twentieth of its time, because there is a path for each recording.
        path = str(value)
        inside = root if root in (".", anchor) else f"{root}/"
        if root == "." and not value.is_absolute():
            return path
        return (path[len(inside) :] if path.startswith(inside) else path) if path != root else "."
    if isinstance(value, Mapping):
        return {key: _plain(each, root, anchor) for key, each in value.items()}
    if isinstance(value, frozenset):
        return sorted(_plain(each, root, anchor) for each in value)
    if isinstance(value, tuple | list):
        return [_plain(each, root, anchor) for each in value]
    fields = _described_fields(type(value))  # type: ignore[arg-type]
    return {
        name: _plain(getattr(value, name), root, anchor)
        for name, absent, default in fields
        if not (absent and getattr(value, name) == default)
    }
