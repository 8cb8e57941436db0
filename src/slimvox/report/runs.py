"""Reading of runs from disk: their settings, logs and results."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from slimvox.checkpoint.directory import is_slimvox_directory, read_anatomies
from slimvox.checkpoint.json_fields import read_json
from slimvox.comparison.distance import Distance
from slimvox.costs import macs, parameters
from slimvox.pruning.outcome import read_outcome
from slimvox.pruning.run_state import LOG, SETTINGS
from slimvox.report.run_files import STAGES, read_log, read_request, read_teacher
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.util.errors import SlimvoxError

DEPTH = 3
"""Maximum depth of folders searched for runs."""
CARD_DISTANCE = re.compile(
    r"^\| distance to the teacher after stage (\d) \| relative error ([\d.]+), 1 - cosine ([\d.]+)"
    r" \(all hidden states, (\d+) s",
    re.MULTILINE,
)
"""A row of the model card; runs from before `outcome.json` have their distances only there."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run, finished or under way, or an encoder without the log of its run."""

    directory: Path
    label: str
    """Unique label of the run on the page."""
    finished: bool
    anatomy: EncoderAnatomy | None
    """Anatomy of the pruned encoder; None while the run is in progress."""
    dense: EncoderAnatomy | None
    teacher: str
    """Name of the teacher, as given by the user; empty if unknown."""
    recipe: Mapping[str, Any]
    """Values of the recipe by section and field; empty if unknown."""
    seed: int | None
    control: str | None
    log: tuple[Mapping[str, Any], ...]
    """Records of stage 1, then of stage 2."""
    after_prune: Distance | None
    """Distance to the teacher right after surgery."""
    after_finish: Distance | None
    """Distance to the teacher at the end."""
    facts: Mapping[str, Any]
    """Audio, environment and other facts about the run, by name."""

    def stage(self, name: str) -> tuple[Mapping[str, Any], ...]:
        """The records of one stage, `prune` or `finish`."""
        return self._stages.get(name, ())

    @cached_property
    def _stages(self) -> dict[str, tuple[Mapping[str, Any], ...]]:
        return {name: tuple(record for record in self.log if record["stage"] == name) for name in STAGES}

    @property
    def surgery_step(self) -> int:
        """Number of steps that stage 1 has taken, after which stage 2 begins on an axis of both."""
        records = self.stage("prune")
        return int(records[-1]["step"]) if records else 0

    @property
    def parameters(self) -> int | None:
        """Number of parameters of the pruned encoder."""
        return None if self.anatomy is None else parameters(self.anatomy)

    @property
    def macs_10s(self) -> int | None:
        """MACs of the pruned encoder for a clip of 10 s."""
        return None if self.anatomy is None else macs(self.anatomy)


def read_runs(paths: Sequence[str | Path]) -> tuple[RunRecord, ...]:
    """Read runs; a folder of runs means all of them, in the order of their names.

    Args:
        paths: directories of runs, or folders that contain them.

    Raises:
        SlimvoxError: if a path does not exist, contains no run, or is damaged.
    """
    directories: list[Path] = []
    for path in paths:
        for directory in _runs_in(Path(path).expanduser()):
            if directory.resolve() not in {known.resolve() for known in directories}:
                directories.append(directory)
    labels = _labels(directories)
    return tuple(_read(directory, label) for directory, label in zip(directories, labels, strict=True))


def _runs_in(path: Path) -> list[Path]:
    if not path.exists():
        raise SlimvoxError(f"there is no {path}; give the directory of a run, or a folder of runs")
    if not path.is_dir():
        raise SlimvoxError(f"{path} is a file; give the directory of a run, or a folder of runs")
    found = _search(path, DEPTH)
    if not found:
        raise SlimvoxError(
            f"{path} holds no run of slimvox (a config.json that slimvox wrote, or run/{SETTINGS}), and no folder in it"
            " does"
        )
    return found


def _search(path: Path, depth: int) -> list[Path]:
    if is_slimvox_directory(path):
        return [path]
    children = sorted(child for child in path.iterdir() if child.is_dir()) if depth else []
    # The directory of a run for several sizes has a log, and so has each size below it.
    below = [run for child in children for run in _search(child, depth - 1)]
    is_run = any((path / "run" / name).is_file() for name in (LOG, SETTINGS))
    return below or ([path] if is_run else [])


def _labels(directories: Sequence[Path]) -> list[str]:
    """Name of each directory, with as many of its parents as needed to make it unique and more than a number."""
    parts = [directory.resolve().parts for directory in directories]
    length = 2 if any(each[-1].isdigit() for each in parts) else 1
    while True:
        labels = ["/".join(each[-length:]) for each in parts]
        if len(set(labels)) == len(labels) or length > max(map(len, parts)):
            return labels
        length += 1


def _read(directory: Path, label: str) -> RunRecord:
    run = directory / "run"
    config = read_json(directory / "config.json") if is_slimvox_directory(directory) else {}
    settings = _settings(run / SETTINGS)
    fingerprint = settings.get("fingerprint", {})
    environment = read_request(fingerprint, run / SETTINGS)
    in_config = config.get("run") or {}
    asked = environment
    if in_config:
        read_request(in_config, directory / "config.json")
        asked = read_request({**fingerprint, **in_config}, directory / "config.json")
    anatomy, dense = read_anatomies(directory) if config else (None, None)
    outcome = read_outcome(run)
    after_prune, after_finish = _distances(outcome, directory / "README.md")
    speeds = {
        "speed-up measured in the run": outcome.get("speed_up"),
        f"speed-up predicted for {outcome.get('predicted_for')}": outcome.get("predicted_speed_up"),
    }
    facts = {
        **{title: f"{value:.2f}" for title, value in speeds.items() if value is not None},
        **outcome.get("environment", {}),
        **(
            {}
            if environment.precision is None
            else {"precision": environment.precision.replace("no", "float32")}
        ),
        **({} if environment.processes is None else {"processes": environment.processes}),
        **{f"audio {name}": value for name, value in outcome.get("audio", {}).items()},
    }
    return RunRecord(
        directory=directory,
        label=label,
        finished=bool(config) and settings.get("status", "finished") == "finished",
        anatomy=anatomy,
        dense=dense,
        teacher=read_teacher(config.get("teacher"), directory / "config.json"),
        recipe=asked.recipe or {},
        seed=asked.seed,
        control=asked.control,
        log=read_log(run / LOG),
        after_prune=after_prune,
        after_finish=after_finish,
        facts=facts,
    )


def _settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    settings = read_json(path)
    if not isinstance(settings.get("fingerprint"), dict):
        raise SlimvoxError(f"{path} is damaged: the settings of the run are missing")
    return settings


def _distances(outcome: Mapping[str, Any], card: Path) -> tuple[Distance | None, Distance | None]:
    """Distances to the teacher after surgery and at the end."""
    if outcome:
        first, last = (outcome.get(f"distance_after_{stage}") for stage in ("prune", "finish"))
        return (_distance(first) if first else None, _distance(last) if last else None)
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    found = {
        stage: Distance(relative_error=float(error), cosine=float(cosine), seconds=float(seconds))
        for stage, error, cosine, seconds in CARD_DISTANCE.findall(text)
    }
    return found.get("1"), found.get("2")


def _distance(fields: Mapping[str, Any]) -> Distance:
    return Distance(
        relative_error=fields["relative_error"], cosine=fields["cosine"], seconds=fields["seconds"]
    )
