"""Measurements of a run and their conditions, as a JSON file beside its log, for reports and figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from slimvox._version import __version__
from slimvox.comparison.distance import Distance
from slimvox.measure.benchmark.result import machine
from slimvox.pruning.run_directory import OUTCOME
from slimvox.util.errors import SlimvoxError
from slimvox.util.files import write_atomically
from slimvox.util.json_files import read_json_object
from slimvox.util.output_paths import writing
from slimvox.util.validation import CountOrZero, PositiveOrZero, build

if TYPE_CHECKING:
    from slimvox.pruning.result import PruneResult, RunSettings


@dataclass(frozen=True, kw_only=True)
class _Audio:
    clips: CountOrZero = 0
    hours: PositiveOrZero = 0.0
    skipped: Mapping[str, CountOrZero] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """Types of the fields of the file; all may be missing."""

    distance_after_prune: Distance | None = None
    distance_after_finish: Distance | None = None
    speed_up: PositiveOrZero | None = None
    predicted_speed_up: PositiveOrZero | None = None
    predicted_for: str | None = None
    audio: _Audio = field(default_factory=_Audio)
    environment: Mapping[str, Any] = field(default_factory=dict)


def write_outcome(result: PruneResult, settings: RunSettings, device: torch.device) -> None:
    """Write distances, audio and environment of a run to `run/outcome.json`.

    Raises:
        SlimvoxError: if it cannot be written.
    """
    path = settings.out.run / OUTCOME
    with writing(path, "; free some space, then repeat the same command"):
        write_atomically(path, json.dumps(outcome(result, settings, device), indent=1).encode())


def outcome(result: PruneResult, settings: RunSettings, device: torch.device) -> dict[str, Any]:
    """Content of the file, as JSON types: `distance_after_prune`, `distance_after_finish`, `speed_up`,
    `predicted_speed_up`, `predicted_for`, `audio`, `environment`.
    """
    import transformers

    after_prune, after_finish = result.distance_after_prune, result.distance_after_finish
    audio = settings.audio
    return {
        "distance_after_prune": asdict(after_prune) if after_prune else None,
        "distance_after_finish": asdict(after_finish) if after_finish else None,
        "speed_up": result.speed_up,
        "predicted_speed_up": result.predicted_speed_up,
        "predicted_for": result.predicted_for,
        "audio": {
            "clips": len(audio.training),
            "held_out": len(audio.held_out),
            "named": audio.named,
            "hours": audio.training_seconds / 3600,
            "skipped": dict(result.skipped_files),
        },
        "environment": {
            "slimvox": __version__,
            "transformers": transformers.__version__,
            **machine(torch.get_num_threads(), device.type),
        },
    }


def read_outcome(run: Path) -> dict[str, Any]:
    """Read the content of the file; empty for runs of a slimvox version that did not write it.

    Args:
        run: the folder `run` of the run's directory.

    Raises:
        SlimvoxError: if it is damaged.
    """
    path = run / OUTCOME
    if not path.is_file():
        return {}
    try:
        content = read_json_object(path)
        build(_Outcome, content, ignore_unknown=True)
    except SlimvoxError as error:
        raise SlimvoxError(f"{path} is damaged ({error}); delete it to continue without it") from error
    return content
