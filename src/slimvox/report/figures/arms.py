"""Grouping of runs into arms, which have the same recipe except for size and seed."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from slimvox.report.figures.quality import Quality
from slimvox.report.runs import RunRecord
from slimvox.report.tables import completed, completed_fields

CONTROL_TITLES = {
    "random": "random gates",
    "magnitude": "smallest weights dropped",
    "top-layers": "top layers dropped",
    "thin": "thin, from scratch",
}
TOTAL = "total steps"
SIZE = "target.keep"
STE = "gates.straight_through"
MOST_DIFFERENCES = 3
CUT_SHORT = "…"


@dataclass(frozen=True, kw_only=True)
class Point:
    """Runs of one arm with the same target, which differ in their seed."""

    runs: tuple[RunRecord, ...]
    quality: float
    """Mean over the runs."""
    spread: tuple[float, float]
    """Distances of the minimum and the maximum from the mean, both at least 0."""

    def mean(self, values: Mapping[str, float]) -> float | None:
        """Mean of values given by the label of the run; None unless every run has one."""
        found = [values[run.label] for run in self.runs if run.label in values]
        return statistics.fmean(found) if len(found) == len(self.runs) else None


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Points that differ only in size."""

    label: str
    fields: Mapping[str, str]
    """Every setting but target and seed, dotted."""
    points: tuple[Point, ...]
    """Points from small to large."""


def arms_of(runs: Sequence[RunRecord], quality: Quality) -> tuple[Arm, ...]:
    """Group the runs that are finished and measured into arms; controls come last."""
    measured = [run for run in runs if run.label in quality.values and run.parameters is not None]
    groups: dict[str, list[RunRecord]] = {}
    for run in measured:
        groups.setdefault(json.dumps(_fields(run), sort_keys=True), []).append(run)
    # The sort is stable, so that other arms keep the order of the runs.
    groups = dict(sorted(groups.items(), key=lambda group: _place(json.loads(group[0]))))
    fields = [json.loads(key) for key in groups]
    members_of = list(groups.values())
    labels = _folder_names(members_of) or _labels(fields)
    if all(len(members) == 1 for members in members_of) and any(CUT_SHORT in label for label in labels):
        labels = [members[0].label for members in members_of]
    return tuple(
        Arm(label=label, fields=own, points=_points(members, quality))
        for label, own, members in zip(labels, fields, members_of, strict=True)
    )


def _folder_names(arms: Sequence[Sequence[RunRecord]]) -> list[str]:
    """Names of the arms' folders if each has its own (ARM/0, ARM/1, ARM-50/0); otherwise nothing. If these lie in
    different folders, the names of those are included.
    """
    folders = [{run.directory.resolve().parent for run in runs} for runs in arms]
    names = [_common_name({folder.name for folder in own}) for own in folders]
    around = [_common_name({folder.parent.name for folder in own}) for own in folders]
    if len(set(around)) > 1:
        names = [f"{outer}/{name}" if name else "" for outer, name in zip(around, names, strict=True)]
    return names if len(names) > 1 and len(set(names)) == len(names) and all(names) else []


def _common_name(names: Collection[str]) -> str:
    """The shortest of some names if all begin with it, or their part before a number: macs for macs-20 and macs-30; or
    nothing.
    """
    shortest = min(names, key=len)
    if all(name.startswith(shortest) for name in names):
        return shortest
    before = {re.split(r"[-_.]?\d", name)[0] for name in names}
    return before.pop() if len(before) == 1 else ""


def _place(fields: Mapping[str, str]) -> tuple[bool, bool]:
    """Sort key of an arm: learned gates before controls, with the estimator before without."""
    return bool(fields["control"]), fields.get(STE) == "false"


def target_of(run: RunRecord) -> str:
    """Target of a run, as a key."""
    return json.dumps(completed(run.recipe).get("target"), sort_keys=True)


def _points(runs: Sequence[RunRecord], quality: Quality) -> tuple[Point, ...]:
    by_target: dict[str, list[RunRecord]] = {}
    for run in runs:
        by_target.setdefault(target_of(run), []).append(run)
    points = []
    for members in by_target.values():
        values = [quality.values[run.label] for run in members]
        mean = statistics.fmean(values)
        spread = (mean - min(values), max(values) - mean)
        points.append(Point(runs=tuple(members), quality=mean, spread=spread))
    return tuple(sorted(points, key=lambda point: point.runs[0].parameters or 0))


def _fields(run: RunRecord) -> dict[str, str]:
    # A control learns no gates, so that their settings have no effect on it.
    left_out = (SIZE, "gates.") if run.control else (SIZE,)
    fields = completed_fields(run.recipe)
    return {
        "control": run.control or "",
        **{name: text for name, text in fields.items() if not name.startswith(left_out)},
    }


def _labels(arms: Sequence[Mapping[str, str]]) -> list[str]:
    """Labels that distinguish the arms: recipe, control, and the settings in which arms of that kind differ."""
    several_names = len({arm.get("name") for arm in arms}) > 1
    shown = [_with_total_steps(arm, arms) for arm in arms]
    labels = []
    for arm in shown:
        alike = [
            other for other in shown if all(other.get(key) == arm.get(key) for key in ("name", "control"))
        ]
        differing = [
            name for name in arm if name == TOTAL or any(other.get(name) != arm[name] for other in alike)
        ]
        parts = [arm.get("name") or "recipe unknown"] if several_names else []
        if arm["control"]:
            parts.append(CONTROL_TITLES.get(arm["control"], arm["control"]))
        elif len(alike) == 1 and not several_names:
            parts.append("learned gates")
        if len(differing) > MOST_DIFFERENCES:
            differing = [*_telling(arm, alike, differing), CUT_SHORT]
        parts += [CUT_SHORT if name == CUT_SHORT else _named(name, arm[name]) for name in differing]
        labels.append(", ".join(parts))
    return [
        label if labels.count(label) == 1 else f"{label} #{labels[: place + 1].count(label)}"
        for place, label in enumerate(labels)
    ]


def _telling(arm: Mapping[str, str], others: Sequence[Mapping[str, str]], names: Sequence[str]) -> list[str]:
    """The few settings that tell an arm from most others, each chosen for those that are not yet told apart."""
    chosen: list[str] = []
    left = [other for other in others if other is not arm]
    while left and len(chosen) < MOST_DIFFERENCES:
        best = max(
            names, key=lambda name: (sum(other.get(name) != arm[name] for other in left), name == TOTAL)
        )
        chosen.append(best)
        left = [other for other in left if other.get(best) == arm[best]]
    return [name for name in names if name in chosen]


def _with_total_steps(arm: Mapping[str, str], arms: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Settings with the total number of steps instead of each stage's length, if arms differ in length."""

    def total(each: Mapping[str, str]) -> int:
        return sum(int(each.get(f"{stage}.steps", 0)) for stage in ("prune", "finish"))

    if len({total(each) for each in arms}) == 1:
        return dict(arm)
    others = {name: text for name, text in arm.items() if not name.endswith("steps")}
    return {**others, TOTAL: str(total(arm))}


def _named(name: str, value: str) -> str:
    if name == STE:
        return "with STE" if value == "true" else "without STE"
    if name == TOTAL:
        return f"{value} steps"
    return f"{name} {value}"
