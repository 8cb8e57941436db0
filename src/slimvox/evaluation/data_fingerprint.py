"""Fingerprint of an evaluation's data."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slimvox.evaluation.examples import ABSENT_AT_DEFAULT, ExampleSet


def describe_data(folds: Sequence[ExampleSet[Any]], root: Path) -> str:
    """A hash of all examples that is the same wherever the data folder lies."""
    described = json.dumps([_plain(fold, str(root), root.anchor) for fold in folds], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()


@functools.cache
def _described_fields(kind: type) -> list[tuple[str, bool, Any]]:
    """Name of each field of a dataclass, whether it is left out at its default, and that."""
    return [
        (field.name, bool(field.metadata.get(ABSENT_AT_DEFAULT)), field.default)
        for field in dataclasses.fields(kind)
    ]


def _plain(value: Any, root: str, anchor: str) -> Any:
    """Examples as JSON; paths relative to the data folder, so that the same data elsewhere is the same data."""
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, Path):
        # As `relative_to`, at a twentieth of its time: there are as many paths as recordings.
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
