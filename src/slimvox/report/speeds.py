"""Speeds measured by `slimvox benchmark`, and which run they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slimvox.checkpoint.transformers_reader import read_json
from slimvox.errors import SlimvoxError
from slimvox.report.runs import RunRecord
from slimvox.report.scores import run_of


@dataclass(frozen=True, kw_only=True)
class Speed:
    """One encoder, timed at one length and batch size."""

    label: str
    """The run's label with the backend, or what the benchmark called it."""
    run: RunRecord | None
    batch: int
    seconds: float
    milliseconds: float
    """Median."""
    spread: float
    """Half the distance between the quartiles, as a share of the median."""
    speedup: float
    """How many times as fast as `reference`."""
    reference: str
    machine: str
    """Processor and threads."""


def read_speeds(paths: Sequence[Path], runs: Sequence[RunRecord]) -> tuple[Speed, ...]:
    """Read the JSON files that `slimvox benchmark --out` wrote.

    Raises:
        SlimvoxError: if a file is not there or is something else.
    """
    return tuple(speed for path in paths for speed in _read(path, runs))


def _read(path: Path, runs: Sequence[RunRecord]) -> list[Speed]:
    if not path.is_file():
        raise SlimvoxError(f"there is no file {path}; `slimvox benchmark MODEL... --out FILE` writes one")
    content = read_json(path)
    try:
        machine = f"{content['machine']['processor']}, threads: {content['machine']['threads']}"
        contenders = {each["label"]: each for each in content["contenders"]}
        speeds = []
        for measured in content["measurements"]:
            contender = contenders[measured["label"]]
            run = run_of(str(contender["model"]), int(contender["parameters"]), runs)
            if measured["label"] == content["reference"]:
                run = None
            speeds.append(
                Speed(
                    label=f"{run.label} ({contender['backend']})" if run else str(measured["label"]),
                    run=run,
                    batch=int(measured["batch"]),
                    seconds=float(measured["seconds"]),
                    milliseconds=float(measured["median_ms"]),
                    spread=float(measured["spread"]),
                    speedup=float(measured["speedup"]),
                    reference=str(content["reference"]),
                    machine=machine,
                )
            )
    except (KeyError, TypeError, ValueError) as error:
        raise SlimvoxError(
            f"{path} is no result of `slimvox benchmark --out` ({error!r} is missing)"
        ) from error
    return speeds
