"""Reading of a run's JSON files for a page, with their types checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimvox.losses import loss_names
from slimvox.pruning.recipe import Recipe
from slimvox.util.errors import SlimvoxError, reason_of
from slimvox.util.json_files import parse_json
from slimvox.util.validation import LARGEST_COUNT, build

STAGES = ("prune", "finish")
QUANTITIES = frozenset(
    {
        *("distillation", "sparsity", "target_sparsity", "lambda1", "lambda2"),
        *("gradient_norm", "learning_rate"),
    }
)
"""Numbers of the log that are drawn, beside the losses."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """Settings of a run, from settings.json and config.json."""

    recipe: Mapping[str, Any] | None = None
    seed: int | None = None
    control: str | None = None
    precision: str | None = None
    processes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """The model that a run started from, in config.json."""

    name: str | None = None


def read_request(content: Mapping[str, Any], path: Path) -> Request:
    """Read a request; fields that a page does not need are ignored.

    Raises:
        SlimvoxError: if a value is of the wrong type.
    """
    request: Request = _read(Request, content, path)
    for section, defaults in _RECIPE.items():
        found = (request.recipe or {}).get(section, defaults)
        if not isinstance(found, type(defaults)):
            raise SlimvoxError(f"{path} is damaged: `recipe.{section}` is {found!r}")
        for name in defaults.keys() & found.keys() if isinstance(defaults, dict) else ():
            if not _is_like(found[name], defaults[name]):
                raise SlimvoxError(f"{path} is damaged: `recipe.{section}.{name}` is {found[name]!r}")
    return request


def read_teacher(content: Any, path: Path) -> str:
    """The teacher's name; empty if it is not given.

    Raises:
        SlimvoxError: if a value is of the wrong type.
    """
    teacher: Teacher = _read(Teacher, {} if content is None else content, path)
    return teacher.name or ""


def read_log(path: Path) -> tuple[Mapping[str, Any], ...]:
    """The records of a log, without numbers that are not finite; an incomplete last line is ignored.

    Raises:
        SlimvoxError: if the log cannot be read, or another line is damaged.
    """
    if not path.is_file():
        return ()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SlimvoxError(f"{path} cannot be read: {reason_of(error)}") from error
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = _record(parse_json(line, "the line"))
        except (ValueError, SlimvoxError) as error:
            if number == len(lines):
                break
            raise SlimvoxError(
                f"{path} is damaged in line {number} ({error}); remove that line to continue without it"
            ) from error
        if record["stage"] in STAGES:
            records.append(record)
    return tuple(records)


def _record(record: Any) -> dict[str, Any]:
    # Checked by hand rather than by annotations, for speed: a log may have 100,000 lines.
    if not isinstance(record, dict) or not isinstance(record.get("stage"), str):
        raise ValueError("it has no stage")
    if type(record.get("step")) is not int or not 1 <= record["step"] <= LARGEST_COUNT:
        raise ValueError("it has no step")
    for name in QUANTITIES.union(loss_names()) & record.keys():
        value = record[name]
        if type(value) not in (int, float):
            raise ValueError(f"`{name}` is not a number")
        if not _is_number(value):
            del record[name]
    if "gates" in record and not _are_histograms(record["gates"]):
        raise ValueError("`gates` are not histograms")
    return record


def _is_like(value: Any, default: Any) -> bool:
    """True if a value of a recipe has the type of its default.

    Its range and valid texts are not checked, as they may differ in the version that wrote it.
    """
    if default is None:
        return value is None or _is_number(value)
    if isinstance(default, float):
        return _is_number(value)
    return type(value) is type(default)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -_LARGEST <= value <= _LARGEST


def _are_histograms(gates: Any) -> bool:
    return isinstance(gates, dict) and all(
        isinstance(counts, list)
        and counts
        and all(type(count) is int and 0 <= count <= LARGEST_COUNT for count in counts)
        for counts in gates.values()
    )


def _read(cls: Any, content: Any, path: Path) -> Any:
    try:
        return build(cls, content, ignore_unknown=True)
    except SlimvoxError as error:
        raise SlimvoxError(f"{path} is damaged: {error}") from error


_RECIPE = Recipe().to_dict()
_LARGEST = 1e30
"""Maximum number that is drawn; larger ones are from diverged runs and would hide all others."""
