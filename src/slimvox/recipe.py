"""Recipes: every setting of a pruning run, as data.

The recipes that ship with slimvox are TOML files in `slimvox/recipes`. A recipe is loaded into one frozen dataclass;
each field can be overridden by its dotted name, such as `prune.steps`.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from slimvox.budget import RampShape
from slimvox.costs import cost_names
from slimvox.errors import SlimvoxError
from slimvox.losses import loss_names, losses
from slimvox.structures import structure_names, structures

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True, kw_only=True)
class TargetSettings:
    """What the pruned encoder may cost."""

    kind: str = "params"
    """Kind of cost: `params`, `macs`, `latency` (predicted from a table that the run measures on its machine), or
    another one that is registered."""
    keep: float = 0.28
    """The share of the dense encoder's cost that is kept, between 0 and 1."""
    seconds: float = 10.0
    """Length in seconds of the clip that MACs and latency are counted for."""
    round_to: int = 1
    """Final head widths, feed-forward widths and channels are multiples of this (or as wide as they were)."""


@dataclass(frozen=True, kw_only=True)
class GateSettings:
    """How gates are trained."""

    straight_through: bool = True
    """Give clipped gates the gradient of unclipped ones (the paper's STE)."""
    initial_drop: float = 0.01
    """Gates start at log_alpha = log((1 - drop) / drop)."""
    initial_drops: dict[str, float] = field(default_factory=dict)
    """The same for single structures, by name; `initial_drop` where a structure is not named."""
    learning_rate: float = 0.02
    """Adam, constant, for log_alpha."""
    sparsity_control: Literal["lagrangian", "projection"] = "lagrangian"
    """What takes the expected sparsity to its target: a penalty with multipliers that ascend (the paper), or a
    projection of the gates after each step, which has nothing to tune."""
    multiplier_learning_rate: float = 0.02
    """Constant, ascending, for the Lagrange multipliers."""
    multiplier_optimiser: Literal["adam", "sgd"] = "adam"
    """`adam` moves the multipliers at its own speed however small the gap to the target is, `sgd` in proportion to it
    (the method of multipliers)."""
    initial_quadratic_multiplier: float = 0.0
    """Where the multiplier of the squared gap starts."""
    ramp_steps: int = 5000
    """Steps in which the target sparsity grows from 0 to its final value."""
    ramp_shape: RampShape = "linear"
    """Whether each step of the ramp takes the same share of the dense cost, or of what is left."""
    final_values: Literal["soft", "one"] = "soft"
    """What a surviving gate is worth: its typical value, folded into the weights, or 1."""


@dataclass(frozen=True, kw_only=True)
class DistillationSettings:
    """What the student imitates."""

    layers: int = 4
    """How many hidden states are compared, evenly spaced; all of them where there are no more."""
    weights: dict[str, float] = field(default_factory=dict)
    """Weight of each loss, by name: `l1` (mean absolute difference), `cosine` (1 - cosine similarity), `relation`
    (squared difference between Gram matrices over time, of states and between a layer's input and output), or another
    one that is registered."""
    maps: bool = True
    """Whether the student's states go through linear maps, which start as the identity, before they are compared."""
    targets: Literal["layers", "groups"] = "layers"
    """Whether single hidden states are compared, or means over the neighbouring states up to each."""
    masked_share: float = 0.0
    """Share of the frames that the teacher sees and the student does not, in spans of 0.2 s."""


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """What a batch is made of."""

    seconds_per_batch: float = 640.0
    """Seconds of audio per optimiser step and process."""
    min_seconds: float = 2.0
    """Shorter files are skipped."""
    max_seconds: float = 15.6
    """Longer files give random crops of this length."""
    held_out_seconds: float = 60.0
    """Audio kept out of training to measure the distance to the teacher on (at most a tenth of all)."""


@dataclass(frozen=True, kw_only=True)
class StageSettings:
    """One stage of training."""

    steps: int
    """Optimiser steps."""
    learning_rate: float
    """Peak, for the encoder's weights and the distillation maps (AdamW); see also `matrix_optimiser`."""
    warmup_steps: int = 0
    """Steps of linear warm-up; then the rate decays linearly to 0."""
    gradient_clip: float = 10.0
    """Largest gradient norm of the weights."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    matrix_optimiser: Literal["adamw", "muon"] = "adamw"
    """What trains the weight matrices of linear maps: AdamW, as everything else, or Muon (Jordan et al. 2024), with
    updates scaled to the size that AdamW's have."""
    matrix_rate_factor: float = 2.0
    """Muon's rate, in multiples of `learning_rate`."""
    teacher_forcing: float = 0.0
    """The teacher's share in what each layer of the student starts from, at the first step; falls linearly to 0."""
    teacher_forcing_until: float = 0.5
    """The part of the stage after which layers start from the student's own states alone."""

    def forced(self, step: int) -> float:
        """The teacher's share in what each layer starts from, at a step counted from 0."""
        end = self.teacher_forcing_until * self.steps
        return self.teacher_forcing * (1 - step / end) if step < end else 0.0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every setting of a run."""

    name: str = "custom"
    """Where it came from."""
    target: TargetSettings = field(default_factory=TargetSettings)
    structures: dict[str, bool] = field(default_factory=dict)
    """Switch of each structure, by name; those that are not named have their default."""
    gates: GateSettings = field(default_factory=GateSettings)
    distillation: DistillationSettings = field(default_factory=DistillationSettings)
    data: DataSettings = field(default_factory=DataSettings)
    prune: StageSettings = field(default_factory=lambda: StageSettings(steps=50_000, learning_rate=2e-4))
    """Stage 1: distillation and pruning together."""
    finish: StageSettings = field(default_factory=lambda: StageSettings(steps=25_000, learning_rate=1e-4))
    """Stage 2: distillation of the small encoder, after surgery."""

    def __post_init__(self) -> None:
        defaults = {each.name: each.enabled for each in structures()}
        object.__setattr__(self, "structures", {**defaults, **self.structures})
        weights = {**{each.name: each.weight for each in losses()}, **self.distillation.weights}
        object.__setattr__(self, "distillation", dataclasses.replace(self.distillation, weights=weights))
        problems = _problems(self)
        if problems:
            raise SlimvoxError(f"recipe {self.name}: " + "; ".join(problems))

    @property
    def pruned_structures(self) -> tuple[str, ...]:
        """Names of the structures that are switched on."""
        return tuple(name for name, enabled in self.structures.items() if enabled)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return dataclasses.asdict(self)

    def limited_to(self, steps: int) -> Recipe:
        """The same recipe squeezed into `steps` steps over both stages, each length scaled alike."""
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
    folder = resources.files("slimvox") / "recipes"
    return tuple(sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".toml")))


def load_recipe(name: str | Path, overrides: Iterable[str] | Mapping[str, Any] = ()) -> Recipe:
    """Load a recipe and override some of its fields.

    Args:
        name: a shipped recipe (`default`, `paper`, `fast`, `quick`), or a path to a TOML file.
        overrides: `section.field=value` texts, such as `prune.steps=1000`, or the same as a mapping.

    Raises:
        SlimvoxError: if there is no such recipe, or a field is unknown or has a value of the wrong kind.
    """
    text = _read(str(name))
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SlimvoxError(f"recipe {name} is no valid TOML: {error}") from error
    data.setdefault("name", Path(name).stem)
    pairs = overrides.items() if isinstance(overrides, Mapping) else (_split(text) for text in overrides)
    for dotted, value in pairs:
        target, parts = data, dotted.split(".")
        for part in parts[:-1]:
            target = target.setdefault(part, {})
            if not isinstance(target, dict):
                raise SlimvoxError(f"recipe {name}: there is no field `{dotted}`")
        target[parts[-1]] = value
    recipe: Recipe = _build(Recipe, data, str(name), "")
    return recipe


def to_toml(recipe: Recipe) -> str:
    """A recipe as the TOML that `load_recipe` reads."""
    lines = []
    for section, value in recipe.to_dict().items():
        if not isinstance(value, dict):
            lines.append(f"{section} = {json.dumps(value)}")
            continue
        given = {name: item for name, item in value.items() if item is not None}
        lines += ["", f"[{section}]", *(f"{name} = {json.dumps(item)}" for name, item in given.items())]
    return "\n".join(lines) + "\n"


def _read(name: str) -> str:
    if name in shipped_recipes():
        return (resources.files("slimvox") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
    path = Path(name).expanduser()
    if not path.is_file():
        known = ", ".join(shipped_recipes())
        raise SlimvoxError(
            f"there is no recipe {name!r}: choose one of {known}, or give the path of a TOML file"
        )
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SlimvoxError(f"recipe {path} can't be read: {error}") from error


def _split(text: str) -> tuple[str, Any]:
    """`a.b=1` as ("a.b", 1), the value read as TOML, or as text where it is none."""
    dotted, equals, value = text.partition("=")
    if not equals:
        raise SlimvoxError(f"an override must read section.field=value, but is {text!r} instead")
    try:
        return dotted.strip(), tomllib.loads(f"value = {value.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        return dotted.strip(), value.strip()


def _build(cls: Any, data: Any, recipe: str, prefix: str) -> Any:
    """A dataclass from a mapping, with every name and type checked."""
    if not isinstance(data, dict):
        raise SlimvoxError(
            f"recipe {recipe}: `{prefix.rstrip('.')}` must be a table, but is {data!r} instead"
        )
    hints = typing.get_type_hints(cls)
    known = {item.name: item for item in dataclasses.fields(cls)}
    for name in data:
        if name not in known:
            raise SlimvoxError(
                f"recipe {recipe}: there is no field `{prefix}{name}`; the fields here are {', '.join(known)}"
            )
    missing = [
        f"{prefix}{item.name}"
        for item in known.values()
        if item.default is dataclasses.MISSING
        and item.default_factory is dataclasses.MISSING
        and item.name not in data
    ]
    if missing:
        raise SlimvoxError(f"recipe {recipe}: missing: {', '.join(missing)}")
    return cls(**{name: _convert(hints[name], value, recipe, prefix + name) for name, value in data.items()})


def _convert(hint: Any, value: Any, recipe: str, name: str) -> Any:
    if type(None) in typing.get_args(hint):
        # TOML has no null: what is not given is None.
        (hint,) = (kind for kind in typing.get_args(hint) if kind is not type(None))
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, recipe, name + ".")
    if typing.get_origin(hint) is dict:
        _, kind = typing.get_args(hint)
        if isinstance(value, dict):
            return {each: _convert(kind, item, recipe, f"{name}.{each}") for each, item in value.items()}
        raise SlimvoxError(f"recipe {recipe}: `{name}` must be a table, but is {value!r} instead")
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        if value in choices:
            return value
        wanted = f"one of {', '.join(map(str, choices))}"
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif (hint is int and isinstance(value, int) and not isinstance(value, bool)) or (
        hint in (bool, str) and isinstance(value, hint)
    ):
        return value
    else:
        wanted = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}.get(
            hint, str(hint)
        )
    raise SlimvoxError(f"recipe {recipe}: `{name}` must be {wanted}, but is {value!r} instead")


def _problems(recipe: Recipe) -> list[str]:
    """Everything wrong with the values of a recipe."""
    problems = []

    def check(condition: bool, name: str, wanted: str, value: object) -> None:
        if not condition:
            problems.append(f"`{name}` must be {wanted}, but is {value} instead")

    check(0 < recipe.target.keep < 1, "target.keep", "between 0 and 1", recipe.target.keep)
    check(recipe.target.seconds > 0, "target.seconds", "above 0", recipe.target.seconds)
    check(recipe.target.round_to >= 1, "target.round_to", "at least 1", recipe.target.round_to)
    kinds = cost_names()
    check(recipe.target.kind in kinds, "target.kind", f"one of {', '.join(kinds)}", recipe.target.kind)
    check(bool(recipe.pruned_structures), "structures", "such that at least one is on", "all off")
    check(
        0 < recipe.gates.initial_drop < 1, "gates.initial_drop", "between 0 and 1", recipe.gates.initial_drop
    )
    for name, drop in recipe.gates.initial_drops.items():
        check(0 < drop < 1, f"gates.initial_drops.{name}", "between 0 and 1", drop)
    for section, names in (
        ("structures", recipe.structures),
        ("gates.initial_drops", recipe.gates.initial_drops),
    ):
        for name in set(names) - set(structure_names()):
            problems.append(
                f"there is no structure `{section}.{name}`; the structures are {', '.join(structure_names())}"
            )
    quadratic = recipe.gates.initial_quadratic_multiplier
    check(quadratic >= 0, "gates.initial_quadratic_multiplier", "at least 0", quadratic)
    check(recipe.gates.ramp_steps >= 0, "gates.ramp_steps", "at least 0", recipe.gates.ramp_steps)
    distillation = recipe.distillation
    check(distillation.layers >= 1, "distillation.layers", "at least 1", distillation.layers)
    for name, weight in distillation.weights.items():
        check(weight >= 0, f"distillation.weights.{name}", "at least 0", weight)
    known = loss_names()
    for name in set(distillation.weights) - set(known):
        problems.append(f"there is no loss `distillation.weights.{name}`; the losses are {', '.join(known)}")
    share = distillation.masked_share
    check(0 <= share < 1, "distillation.masked_share", "at least 0 and below 1", share)
    data = recipe.data
    check(data.min_seconds >= 0.025, "data.min_seconds", "at least 0.025 (one frame)", data.min_seconds)
    check(
        data.max_seconds >= data.min_seconds,
        "data.max_seconds",
        "at least data.min_seconds",
        data.max_seconds,
    )
    check(data.seconds_per_batch > 0, "data.seconds_per_batch", "above 0", data.seconds_per_batch)
    check(data.held_out_seconds >= 0, "data.held_out_seconds", "at least 0", data.held_out_seconds)
    for name, stage in (("prune", recipe.prune), ("finish", recipe.finish)):
        check(stage.steps >= (name == "prune"), f"{name}.steps", "a positive number", stage.steps)
        check(stage.learning_rate > 0, f"{name}.learning_rate", "above 0", stage.learning_rate)
        check(stage.warmup_steps >= 0, f"{name}.warmup_steps", "at least 0", stage.warmup_steps)
        check(stage.gradient_clip > 0, f"{name}.gradient_clip", "above 0", stage.gradient_clip)
        check(stage.weight_decay >= 0, f"{name}.weight_decay", "at least 0", stage.weight_decay)
        check(stage.matrix_rate_factor > 0, f"{name}.matrix_rate_factor", "above 0", stage.matrix_rate_factor)
        for field_name in ("teacher_forcing", "teacher_forcing_until"):
            value = getattr(stage, field_name)
            check(0 <= value <= 1, f"{name}.{field_name}", "between 0 and 1", value)
    return problems


def _shortened(stage: StageSettings, steps: int) -> StageSettings:
    share = steps / max(1, stage.steps)
    return dataclasses.replace(stage, steps=steps, warmup_steps=round(stage.warmup_steps * share))
