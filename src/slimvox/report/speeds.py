"""Speeds measured by `slimvox benchmark`, and the runs they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slimvox.report.runs import RunRecord
from slimvox.report.score_files import run_of
from slimvox.util.errors import SlimvoxError
from slimvox.util.json_files import read_json_object
from slimvox.util.validation import Count, Positive, PositiveOrZero, build


@dataclass(frozen=True, kw_only=True)
class Speed:
    """One encoder, timed at one length and batch size."""

    label: str
    """Label of the run with the backend, or the benchmark's label."""
    run: RunRecord | None
    batch: int
    seconds: float
    milliseconds: float
    """Median of the runs."""
    spread: float
    """Half the distance between the quartiles, as a share of the median."""
    speedup: float
    """Speed-up over `reference`."""
    reference: str
    machine: str
    """Processor and threads."""

    def from_10_s(self) -> tuple[int, float]:
        """Sort key: single clips first, and among them the length nearest to 10 s."""
        return self.batch, abs(self.seconds - 10.0)


@dataclass(frozen=True, kw_only=True)
class _Machine:
    processor: str
    threads: int


@dataclass(frozen=True, kw_only=True)
class _Contender:
    label: str
    model: str
    backend: str
    parameters: int


@dataclass(frozen=True, kw_only=True)
class _Measurement:
    label: str
    batch: Count
    seconds: Positive
    median_ms: Positive
    spread: PositiveOrZero
    speedup: Positive
    threads: Count | None = None
    """None in files of earlier versions, which measure with one number of threads."""


@dataclass(frozen=True, kw_only=True)
class _Benchmark:
    """The fields of the file that a page needs."""

    machine: _Machine
    reference: str
    contenders: Sequence[_Contender]
    measurements: Sequence[_Measurement]


def read_speeds(paths: Sequence[str | Path], runs: Sequence[RunRecord]) -> tuple[Speed, ...]:
    """Read the JSON files that `slimvox benchmark --out` wrote.

    Raises:
        SlimvoxError: if a file does not exist or is not such a file.
    """
    return tuple(speed for path in paths for speed in _read(Path(path).expanduser(), runs))


def _read(path: Path, runs: Sequence[RunRecord]) -> list[Speed]:
    if not path.is_file():
        raise SlimvoxError(f"there is no file {path}; `slimvox benchmark MODEL... --out FILE` writes one")
    try:
        content: _Benchmark = build(_Benchmark, read_json_object(path), ignore_unknown=True)
    except SlimvoxError as error:
        raise SlimvoxError(f"{path} is not a result of `slimvox benchmark --out` ({error})") from error
    contenders = {each.label: each for each in content.contenders}
    speeds = []
    for measured in content.measurements:
        contender = contenders.get(measured.label)
        if contender is None:
            raise SlimvoxError(f"{path} is damaged: it says nothing about the contender {measured.label}")
        run = run_of(contender.model, contender.parameters, runs)
        if measured.label == content.reference:
            run = None
        speeds.append(
            Speed(
                label=f"{run.label} ({contender.backend})" if run else measured.label,
                run=run,
                batch=measured.batch,
                seconds=measured.seconds,
                milliseconds=measured.median_ms,
                spread=measured.spread,
                speedup=measured.speedup,
                reference=content.reference,
                machine=f"{content.machine.processor}, threads: {measured.threads or content.machine.threads}",
            )
        )
    return speeds
