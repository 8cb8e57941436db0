"""The published SUPERB scores of `published.toml`, which names their sources."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """A row of the published table."""

    name: str
    parameters: float
    """Number of parameters, in millions."""
    macs: float | None = None
    """MACs in billions, over 224.86 s of LibriSpeech test-clean; None if not published."""
    superb_s: int
    mean11: float
    """Mean over 11 metrics as published, to one decimal."""
    scores: Mapping[str, float]
    """Metric to value, see `slimvox.evaluation.points.METRICS`."""


def published_models() -> tuple[PublishedModel, ...]:
    """All rows, in the table's order."""
    table = tomllib.loads((Path(__file__).parent / "published.toml").read_text(encoding="utf-8"))
    return tuple(PublishedModel(**row) for row in table["models"])
