"""Recipes: every setting of a pruning run, as data.

The recipes that ship with slimvox are TOML files in `slimvox/pruning/recipes`; a recipe can extend another one. A
recipe is loaded into one frozen dataclass; each field can be overridden by its dotted name, such as `prune.steps`.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import tomli_w

import slimvox.measure.latency  # noqa: F401 - registers its kind of cost
from slimvox.costs import cost_names
from slimvox.losses import loss_names, losses
from slimvox.pruning.settings import (
    DataSettings,
    DistillationSettings,
    GateSettings,
    StageSettings,
    TargetSettings,
)
from slimvox.structures import structure_names, structures
from slimvox.util.errors import SlimvoxError, reason_of
from slimvox.util.validation import build, check_fields, shown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


RENAMED = {
    "distillation.l1_weight": "distillation.weights.l1",
    "distillation.cosine_weight": "distillation.weights.cosine",
    "distillation.relation_weight": "distillation.weights.relation",
    "gates.intermediate_initial_drop": "gates.initial_drops.intermediate",
}
"""Fields of earlier versions, mapped to their current names."""
LATER = {"gates.optimiser": "adam"}
"""Fields that were added after figures had been stamped with digests, with the value that recipes had until then."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every setting of a run."""

    name: str = "custom"
    """Name of the recipe or file that it was loaded from."""
    target: TargetSettings = field(default_factory=TargetSettings)
    structures: dict[str, bool] = field(default_factory=dict)
    """Switch of each structure, by name; structures that are not named have their default."""
    gates: GateSettings = field(default_factory=GateSettings)
    distillation: DistillationSettings = field(default_factory=DistillationSettings)
    data: DataSettings = field(default_factory=DataSettings)
    prune: StageSettings = field(default_factory=lambda: StageSettings(steps=50_000, learning_rate=2e-4))
    """Stage 1: distillation and pruning together."""
    finish: StageSettings = field(default_factory=lambda: StageSettings(steps=25_000, learning_rate=1e-4))
    """Stage 2: distillation of the small encoder, after surgery."""

    def __post_init__(self) -> None:
        switches = {**{each.name: each.enabled for each in structures()}, **self.structures}
        object.__setattr__(self, "structures", switches)
        weights = {**{each.name: each.weight for each in losses()}, **self.distillation.weights}
        object.__setattr__(self, "distillation", dataclasses.replace(self.distillation, weights=weights))
        try:
            check_fields(self)
        except SlimvoxError as error:
            raise SlimvoxError(f"recipe {self.name}: {error}") from error
        problems = _contradictions(self)
        if problems:
            raise SlimvoxError(f"recipe {self.name}: " + "; ".join(problems))

    @property
    def pruned_structures(self) -> tuple[str, ...]:
        """Names of the structures that are switched on."""
        return tuple(name for name, enabled in self.structures.items() if enabled)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return dataclasses.asdict(self)

    @property
    def digest(self) -> str:
        """Eight characters that change with any setting; settings that are off or 0 and `LATER` ones are ignored, so
        that a new option that is off changes nothing.
        """
        fields = self.to_dict()
        for name, value in LATER.items():
            section, field_name = name.split(".")
            if fields[section][field_name] == value:
                del fields[section][field_name]
        text = json.dumps(_without_off(fields), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def limited_to(self, steps: int) -> Recipe:
        """The same recipe shortened to `steps` steps over both stages, with all durations scaled by the same factor."""
        total = self.prune.steps + self.finish.steps
        if steps >= total:
            return self
        first = min(max(1, round(steps * self.prune.steps / total)), steps)
        share = first / max(1, self.prune.steps)
        return dataclasses.replace(
            self,
            gates=dataclasses.replace(self.gates, ramp_steps=round(self.gates.ramp_steps * share)),
            prune=_shortened(self.prune, first),
            finish=_shortened(self.finish, steps - first),
        )


def shipped_recipes() -> tuple[str, ...]:
    """Names of the recipes that come with slimvox."""
    folder = resources.files("slimvox") / "pruning" / "recipes"
    return tuple(sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".toml")))


def load_recipe(name: str | Path | Recipe, overrides: str | Iterable[str] | Mapping[str, Any] = ()) -> Recipe:
    """Load a recipe and override some of its fields.

    A warm-up that fills a stage whose `steps` are overridden is shortened in the same proportion as the stage,
    unless it is overridden too.

    Args:
        name: a shipped recipe (`default`, `paper`, `fast`, `quick`, `whisper`), a path to a TOML file, or a recipe.
        overrides: `section.field=value` texts, such as `prune.steps=1000`, or the same as a mapping.

    Raises:
        SlimvoxError: if there is no such recipe, or a field is unknown or has a value of the wrong kind.
    """
    if isinstance(name, Recipe):
        data, name = name.to_dict(), name.name
    else:
        data = _data(str(name))
        data.setdefault("name", Path(name).stem)
    changes = dict(_overrides(overrides))
    base = copy.deepcopy(data)
    for key, value in changes.items():
        _set(data, key, value, str(name))
    _fit_warm_ups(data, base, changes)
    try:
        recipe: Recipe = build(Recipe, data)
    except SlimvoxError as error:
        # A recipe that was built already has a name.
        prefix = f"recipe {name}: "
        text = str(error)
        raise SlimvoxError(text if text.startswith("recipe ") else prefix + text) from error
    return recipe


def recorded_recipe(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a recipe that a run recorded, possibly with an earlier version, in the form of `Recipe.to_dict`.

    Fields that did not exist in that version have their defaults. Raises SlimvoxError if they are not a recipe.
    """
    data = copy.deepcopy(dict(fields))
    _rename(data, str(data.get("name")))
    recipe: Recipe = build(Recipe, data)
    return recipe.to_dict()


def to_toml(recipe: Recipe) -> str:
    """A recipe as TOML that `load_recipe` can read."""
    return tomli_w.dumps(recipe.to_dict())


def _data(name: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """Fields of a recipe, including those of the recipe that it extends."""
    if name in seen:
        raise SlimvoxError(f"recipe {name} extends itself, by way of {' and '.join(seen)}")
    try:
        data: dict[str, Any] = tomllib.loads(_read(name))
    except tomllib.TOMLDecodeError as error:
        raise SlimvoxError(f"recipe {name} is not valid TOML: {error}") from error
    except RecursionError as error:
        raise SlimvoxError(f"recipe {name} is not valid TOML: it is nested too deeply") from error
    _rename(data, name)
    base = data.pop("extends", None)
    if base is None:
        return data
    if not isinstance(base, str):
        raise SlimvoxError(f"recipe {name}: `extends` must be the name of a recipe, but is {base!r} instead")
    beside = os.path.join(os.path.dirname(os.path.expanduser(name)), base)
    extended = _data(beside if os.path.isfile(beside) else base, (*seen, name))
    extended.pop("name", None)
    merged = _merged(extended, data)
    _fit_warm_ups(merged, extended, data)
    return merged


def _fit_warm_ups(data: dict[str, Any], base: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Shorten warm-ups that come from a longer stage of `base` and no longer fit; not those that `changes` name."""
    for stage in ("prune", "finish"):
        fields, longer, changed = data.get(stage), base.get(stage), changes.get(stage)
        is_given = f"{stage}.warmup_steps" in changes or (
            isinstance(changed, dict) and "warmup_steps" in changed
        )
        if is_given or not isinstance(fields, dict) or not isinstance(longer, dict):
            continue
        match fields.get("steps"), fields.get("warmup_steps"), longer.get("steps"):
            case int(steps), int(warmup), int(before) if 0 < steps <= warmup and steps < before:
                fields["warmup_steps"] = round(warmup * steps / before)


def _rename(data: dict[str, Any], recipe: str) -> None:
    """Rename fields that have names of earlier versions."""
    for old, new in RENAMED.items():
        section, field_name = old.split(".")
        table = data.get(section)
        if isinstance(table, dict) and field_name in table:
            value = table.pop(field_name)
            if value is not None:  # how a run recorded a field that was not set
                _set(data, new, value, recipe)


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _set(data: dict[str, Any], key: str, value: Any, recipe: str) -> None:
    """Set a field by its dotted name, current or of an earlier version."""
    target, parts = data, RENAMED.get(key, key).split(".")
    for part in parts[:-1]:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise SlimvoxError(f"recipe {recipe}: there is no field `{key}`")
    target[parts[-1]] = value


def _read(name: str) -> str:
    if name in shipped_recipes():
        return (resources.files("slimvox") / "pruning" / "recipes" / f"{name}.toml").read_text(
            encoding="utf-8"
        )
    path = Path(os.path.expanduser(name))
    if not os.path.isfile(path):  # False also for an overlong name, where the method of Path raises
        known = ", ".join(shipped_recipes())
        raise SlimvoxError(
            f"there is no recipe {shown(name)}: choose one of {known}, or give the path of a TOML file"
        )
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SlimvoxError(f"recipe {path} cannot be read: {reason_of(error)}") from error


def _overrides(given: str | Iterable[str] | Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Dotted names and values of overrides."""
    if isinstance(given, Mapping):
        for key, value in given.items():
            if not isinstance(key, str):
                raise SlimvoxError(
                    f"the keys of `overrides` must be names of fields, such as prune.steps, but one is {shown(key)}"
                )
            yield key, value
        return
    if not isinstance(given, Iterable):
        raise SlimvoxError(
            f"`overrides` must be a list of texts such as prune.steps=1000, or a mapping, but is {shown(given)} instead"
        )
    for text in [given] if isinstance(given, str) else given:
        yield _split(text)


def _split(text: str) -> tuple[str, Any]:
    """The override `a.b=1` as ("a.b", 1): the value is read as TOML, or kept as text if it is not TOML."""
    key, equals, value = text.partition("=") if isinstance(text, str) else ("", "", "")
    if not equals:
        raise SlimvoxError(f"an override must read section.field=value, but is {shown(text)} instead")
    try:
        return key.strip(), tomllib.loads(f"value = {value.strip()}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return key.strip(), value.strip()


def _contradictions(recipe: Recipe) -> list[str]:
    """Descriptions of values that are valid on their own but not together."""
    problems = []
    kinds = cost_names()
    if recipe.target.kind not in kinds:
        problems.append(
            f"`target.kind` must be one of {', '.join(kinds)}, but is {recipe.target.kind!r} instead"
        )
    if recipe.target.runtime and recipe.target.kind != "latency":
        problems.append(
            f"`target.runtime` is for a target in time: give --target-speed or target.kind=latency with"
            f" {recipe.target.runtime!r}"
        )
    named = (
        ("structures", recipe.structures, structure_names()),
        ("gates.initial_drops", recipe.gates.initial_drops, structure_names()),
        ("distillation.weights", recipe.distillation.weights, loss_names()),
    )
    for section, given, known in named:
        for name in sorted(set(given) - set(known)):
            problems.append(f"there is no field `{section}.{name}`; known fields: {', '.join(known)}")
    if not recipe.pruned_structures:
        problems.append("`structures` must be such that at least one is on, but all are off")
    if recipe.data.max_seconds < recipe.data.min_seconds:
        problems.append(
            f"`data.max_seconds` must be at least data.min_seconds, but is {recipe.data.max_seconds} instead"
        )
    if recipe.gates.optimiser != "adam" and recipe.gates.sparsity_control == "projection":
        problems.append(
            "`gates.optimiser` must be adam for gates.sparsity_control=projection, which takes the scale of its moves"
            f" from Adam, but is {recipe.gates.optimiser!r} instead; add gates.sparsity_control=lagrangian"
        )
    if recipe.prune.steps < 1:
        problems.append(f"`prune.steps` must be at least 1, but is {recipe.prune.steps} instead")
    return problems


def _without_off(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _without_off(each) for key, each in value.items() if each}


def _shortened(stage: StageSettings, steps: int) -> StageSettings:
    share = steps / max(1, stage.steps)
    return dataclasses.replace(stage, steps=steps, warmup_steps=round(stage.warmup_steps * share))
