"""Numbers of the page as rows of text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slimvox.comparison.distance import Distance
from slimvox.costs import BLOCK_KINDS, BlockCosts, Macs, Parameters, macs, parameters
from slimvox.pruning.recipe import Recipe
from slimvox.report.runs import RunRecord
from slimvox.report.score_files import ScoreSet
from slimvox.report.speeds import Speed
from slimvox.util.quantities import short_number

BLOCKS = tuple(BLOCK_KINDS.values())
COSTS = (Parameters(), Macs())
UNKNOWN = "–"  # noqa: RUF001


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number of the summary."""

    title: str
    value: str
    note: str = ""
    """Value to compare it with."""


@dataclass(frozen=True, kw_only=True)
class CostRow:
    """Costs of a block, dense and pruned."""

    block: str
    parameters: tuple[str, str, str]
    """Cost of the dense and of the pruned encoder, and the share that is kept."""
    macs: tuple[str, str, str]


def summary(run: RunRecord, scores: Sequence[ScoreSet], speeds: Sequence[Speed]) -> tuple[Figure, ...]:
    """Main figures of a run, with the same titles for every run, so that they make a table."""
    figures = []
    if run.anatomy is not None and run.dense is not None:
        kept, before = parameters(run.anatomy), parameters(run.dense)
        figures.append(_change("parameters", kept, before))
        figures.append(_change("MACs for 10 s", macs(run.anatomy), macs(run.dense)))
    else:
        figures += [Figure(title=title, value=UNKNOWN) for title in ("parameters", "MACs for 10 s")]
    figures.append(_distance("relative error after surgery", run.after_prune))
    figures.append(_distance("relative error at the end", run.after_finish))
    figures.append(_steps(run))
    own = [each for each in scores if each.run is not None and each.run.label == run.label]
    for name in dict.fromkeys(key for each in scores for key in each.overall):
        value = f"{own[0].overall[name]:.0f}" if own and name in own[0].overall else UNKNOWN
        figures.append(Figure(title=name, value=value))
    if speeds:
        figures.append(
            _speed([speed for speed in speeds if speed.run is not None and speed.run.label == run.label])
        )
    return tuple(figures)


def cost_table(run: RunRecord) -> tuple[CostRow, ...]:
    """Parameters and MACs of each block of a run, and their sum."""
    assert run.anatomy is not None and run.dense is not None
    before = [_with_total(cost.by_block(run.dense)) for cost in COSTS]
    after = [_with_total(cost.by_block(run.anatomy)) for cost in COSTS]
    return tuple(
        CostRow(block=block, parameters=_pair(*parameters), macs=_pair(*macs))
        for block, parameters, macs in zip(
            (*BLOCKS, "total"),
            zip(before[0], after[0], strict=True),
            zip(before[1], after[1], strict=True),
            strict=True,
        )
    )


def by_block(costs: BlockCosts) -> tuple[int, ...]:
    """A cost of each of `BLOCKS`, summed over all layers."""
    return tuple(round(costs.kind(kind)) for kind in BLOCK_KINDS)


def flat_recipe(recipe: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Texts of a recipe by section and field; fields outside sections are below an empty name."""
    sections: dict[str, dict[str, str]] = {"": {}}
    for name, value in recipe.items():
        if isinstance(value, Mapping):
            sections[name] = {field: _text(each) for field, each in value.items()}
        else:
            sections[""][name] = _text(value)
    return {name: fields for name, fields in sections.items() if fields}


def completed(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with defaults for fields that the slimvox version that wrote it did not have; an empty one unchanged."""
    if not recipe:
        return {}
    defaults = Recipe().to_dict()
    return {
        name: {**default, **recipe.get(name, {})} if isinstance(default, dict) else recipe.get(name, default)
        for name, default in defaults.items()
    } | {name: value for name, value in recipe.items() if name not in defaults}


def completed_fields(recipe: Mapping[str, Any]) -> dict[str, str]:
    """Texts of a completed recipe by the dotted names of its fields, section by section."""
    return {
        f"{section}.{field}".lstrip("."): text
        for section, values in flat_recipe(completed(recipe)).items()
        for field, text in values.items()
    }


def differences(runs: Sequence[RunRecord]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Settings in which the runs differ: the dotted field, and each run's value."""
    flat = []
    for run in runs:
        flat.append(
            {"seed": _text(run.seed), "control": run.control or "none", **completed_fields(run.recipe)}
        )
    names = dict.fromkeys(name for fields in flat for name in fields)
    rows = [(name, tuple(fields.get(name) or UNKNOWN for fields in flat)) for name in names]
    return tuple((name, values) for name, values in rows if len(set(values)) > 1)


def _change(title: str, after: int, before: int) -> Figure:
    note = f"of {short_number(before)} ({after / before - 1:+.1%})"
    return Figure(title=title, value=short_number(after), note=note.replace("-", "−"))  # noqa: RUF001


def _distance(title: str, distance: Distance | None) -> Figure:
    if distance is None:
        return Figure(title=title, value=UNKNOWN, note="not measured")
    cosine = f"1 − cosine {distance.cosine:.3f}"  # noqa: RUF001
    return Figure(title=title, value=f"{distance.relative_error:.3f}", note=cosine)


def _steps(run: RunRecord) -> Figure:
    steps = [int(records[-1]["step"]) if (records := run.stage(name)) else 0 for name in ("prune", "finish")]
    if not any(steps):
        return Figure(title="steps", value=UNKNOWN)
    return Figure(title="steps", value=str(sum(steps)), note=f"{steps[0]} + {steps[1]}" if all(steps) else "")


def _speed(speeds: Sequence[Speed]) -> Figure:
    if not speeds:
        return Figure(title="speed-up", value=UNKNOWN)
    chosen = min(speeds, key=Speed.from_10_s)
    note = f"{chosen.batch} x {chosen.seconds:g} s against {chosen.reference}"
    return Figure(title="speed-up", value=f"{chosen.speedup:.2f}×", note=note)  # noqa: RUF001


def _with_total(costs: BlockCosts) -> tuple[int, ...]:
    return (*by_block(costs), round(costs.total))


def _pair(before: int, after: int) -> tuple[str, str, str]:
    return (short_number(before), short_number(after), f"{after / before:.0%}" if before else UNKNOWN)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
