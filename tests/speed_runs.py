"""Short runs with a target in time."""

from __future__ import annotations

from pathlib import Path

import slimvox

SHORT_CLIPS = [
    "data.seconds_per_batch=3.0",
    "data.min_seconds=0.5",
    "data.max_seconds=1.0",
    "target.seconds=1",
]


def prune_for_speed(
    teacher: Path,
    speech: Path,
    out: Path,
    speed: str | None = "2x",
    runtime: str | None = None,
    latency_table: Path | None = None,
    overrides: list[str] | None = None,
    sizes: str | None = None,
) -> slimvox.PruneResult:
    """Four steps of `quick` on short clips, with a target in time."""
    return slimvox.prune(
        teacher,
        speech,
        out,
        recipe="quick",
        overrides=[*SHORT_CLIPS, *(overrides or [])],
        target_speed=speed,
        runtime=runtime,
        latency_table=latency_table,
        sizes=sizes,
        max_steps=4,
        device="cpu",
    )
