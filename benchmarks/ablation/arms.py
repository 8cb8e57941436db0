"""The arms of the ablation: what each changes, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from slimvox.pruning import Control

Kind = Literal["paper", "slimvox", "control", "idea", "size", "target"]

MULTIPLIERS: Mapping[str, Any] = MappingProxyType(
    {"gates.sparsity_control": "lagrangian", "gates.ramp_shape": "linear"}
)
"""The penalty that the papers have, along their ramp."""
PLAIN: Mapping[str, Any] = MappingProxyType(
    {
        "prune.matrix_optimiser": "adamw",
        "finish.matrix_optimiser": "adamw",
        "finish.teacher_forcing": 0.0,
    }
)
"""AdamW for everything, and the student on its own from the first step."""
PAPER: Mapping[str, Any] = MappingProxyType(
    {
        **MULTIPLIERS,
        "structures.conv": False,
        "structures.attention": True,
        "structures.feed_forward": True,
        "distillation.layers": 4,
        "distillation.maps": True,
        "gates.multiplier_learning_rate": 4.0,
        **PLAIN,
    }
)
"""`paper`'s structures and objective at the pace of `quick`. Multipliers by Adam, as in the paper, would leave a stage
of 300 steps 12 to 14 points of sparsity short of its target."""
SGD_RATE = 1000.0
"""Learning rate of the gates by SGD, of 10, 100 and 1,000 the one with the smallest error after surgery."""
DPHUBERT: Mapping[str, Any] = MappingProxyType(
    {
        **PAPER,
        "structures.conv": True,
        "structures.attention": False,
        "structures.feed_forward": False,
        "structures.qk": False,
        "structures.vo": False,
        "gates.straight_through": False,
        "gates.initial_drop": 0.01,
        "gates.initial_drops.intermediate": 0.5,
    }
)
"""Peng et al., "DPHuBERT: Joint Distillation and Pruning of Self-Supervised Speech Models" (Interspeech 2023)."""
DPHUBERT_PROJECTED: Mapping[str, Any] = MappingProxyType(
    {name: value for name, value in DPHUBERT.items() if name not in MULTIPLIERS}
)
"""With the control of the size that `quick` has, so that the two differ in what they prune and imitate."""
IDEAS: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "plain": ("AdamW and no teacher forcing", PLAIN),
        "adamw": (
            "AdamW instead of Muon",
            {"prune.matrix_optimiser": "adamw", "finish.matrix_optimiser": "adamw"},
        ),
        "no-forcing": ("without teacher forcing", {"finish.teacher_forcing": 0.0}),
        "forcing-first": (
            "teacher forcing in stage 1 too",
            {"prune.teacher_forcing": 0.5, "prune.teacher_forcing_until": 1.0},
        ),
        "no-ste": ("without STE", {"gates.straight_through": False}),
        "drop-1": ("initial drop .01", {"gates.initial_drop": 0.01}),
        "drop-1-no-ste": (
            "initial drop .01, without STE",
            {"gates.initial_drop": 0.01, "gates.straight_through": False},
        ),
        "blocks": (
            "with gates on whole blocks",
            {"structures.attention": True, "structures.feed_forward": True},
        ),
        "no-conv": ("without `conv`", {"structures.conv": False}),
        "four-layers": ("4 states", {"distillation.layers": 4}),
        "groups": (
            "4 means over groups of states",
            {"distillation.layers": 4, "distillation.targets": "groups"},
        ),
        "maps": ("with maps", {"distillation.maps": True}),
        "relation": ("temporal relations too", {"distillation.weights.relation": 3.0}),
        "masked-input": ("10 % of the input hidden", {"distillation.masked_share": 0.1}),
        "adam-multipliers": (
            "multipliers by Adam from 0",
            {
                **MULTIPLIERS,
                "gates.multiplier_optimiser": "adam",
                "gates.multiplier_learning_rate": 0.03,
                "gates.initial_quadratic_multiplier": 0.0,
            },
        ),
        "fast-multipliers": (
            "multipliers at four times the rate",
            {**MULTIPLIERS, "gates.multiplier_learning_rate": 4.0},
        ),
        "hard-values": ("gates that stay count 1", {"gates.final_values": "one"}),
        "together": (
            "relations and gates that count 1 together",
            {"distillation.weights.relation": 3.0, "gates.final_values": "one"},
        ),
    }
)
"""Name to title and what is changed, one thing at a time but for the last, of `quick`."""


MACS, SPEEDS = (0.5, 0.3, 0.2, 0.1), (1.5, 2.0, 3.0, 4.0)
"""Targets of `quick` in MACs and in time; those in parameters are its sizes."""


@dataclass(frozen=True)
class Target:
    """Size of the pruned encoder, as `slimvox prune` takes it."""

    kind: Literal["parameters", "macs", "speed"]
    value: float
    """The share of the dense encoder to keep, or the speed-up over it."""

    @property
    def text(self) -> str:
        """Value of the option."""
        return f"{self.value:g}x" if self.kind == "speed" else f"{100 * self.value:g}%"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to prune; every arm starts from the recipe `quick`."""

    name: str
    """Name of its folder."""
    title: str
    kind: Kind
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the recipe."""
    control: Control | None = None
    target: Target = Target("parameters", 0.28)

    @property
    def first_stage(self) -> float:
        """Stage 1's share of the steps: gates with multipliers need half of them to arrive."""
        return 1 / 2 if self.overrides.get("gates.sparsity_control") == "lagrangian" else 1 / 3

    @property
    def shipped(self) -> bool:
        """True for the recipe `quick` as it is, at any number of parameters."""
        return not self.overrides and self.control is None and self.kind != "target"

    @property
    def main(self) -> bool:
        """True if it is scored on all tasks that count, not only on some."""
        return self.kind != "idea"


ARMS: tuple[Arm, ...] = (
    Arm(name="quick", title="`quick`: as shipped", kind="slimvox"),
    Arm(
        name="multipliers",
        title="`quick`, multipliers instead of projection",
        kind="slimvox",
        overrides=MULTIPLIERS,
    ),
    Arm(name="paper", title="`paper`: its structures and objective", kind="paper", overrides=PAPER),
    Arm(
        name="paper-no-ste",
        title="`paper`, without STE",
        kind="paper",
        overrides={**PAPER, "gates.straight_through": False},
    ),
    *(
        Arm(
            name=f"paper-{name}sgd",
            title=f"`paper`, {title}SGD on the gates",
            kind="paper",
            overrides={
                **PAPER,
                "gates.straight_through": straight_through,
                "gates.optimiser": "sgd",
                "gates.learning_rate": SGD_RATE,
            },
        )
        for name, title, straight_through in (("", "", True), ("no-ste-", "without STE, ", False))
    ),
    Arm(
        name="paper-whole-heads",
        title="`paper`, whole heads only",
        kind="paper",
        overrides={**PAPER, "structures.qk": False, "structures.vo": False},
    ),
    Arm(
        name="paper-fine-only",
        title="`paper`, `qk`, `vo` and `intermediate` only",
        kind="paper",
        overrides={
            **PAPER,
            "structures.attention": False,
            "structures.feed_forward": False,
            "structures.head": False,
        },
    ),
    Arm(
        name="paper-conv",
        title="`paper`, `conv` too",
        kind="paper",
        overrides={**PAPER, "structures.conv": True},
    ),
    Arm(name="dphubert", title="DPHuBERT's recipe", kind="paper", overrides=DPHUBERT),
    Arm(
        name="dphubert-slow",
        title="DPHuBERT's recipe, multipliers at 1",
        kind="paper",
        overrides={**DPHUBERT, "gates.multiplier_learning_rate": 1.0},
    ),
    Arm(
        name="dphubert-projected",
        title="DPHuBERT's recipe, by projection",
        kind="paper",
        overrides=DPHUBERT_PROJECTED,
    ),
    Arm(name="random", title="random gates", kind="control", control="random"),
    Arm(name="magnitude", title="smallest weights", kind="control", control="magnitude"),
    Arm(name="top-layers", title="top layers dropped", kind="control", control="top-layers"),
    Arm(name="thin", title="thin, from scratch", kind="control", control="thin"),
    *(
        Arm(
            name=name,
            title=f"`quick`, {title}",
            kind="idea",
            overrides=changed,
        )
        for name, (title, changed) in IDEAS.items()
    ),
    *(
        Arm(
            name=f"{name}-{round(100 * (1 - keep))}",
            title=f"{title}, {round(100 * (1 - keep))} % fewer",
            kind="size",
            overrides=overrides,
            control=control,
            target=Target("parameters", keep),
        )
        for keep in (0.5, 0.4, 0.2, 0.1)
        for name, title, overrides, control in (
            ("quick", "`quick`", {}, None),
            ("multipliers", "`quick`, multipliers", MULTIPLIERS, None),
            ("dphubert", "DPHuBERT's recipe", DPHUBERT, None),
            ("dphubert-projected", "DPHuBERT's recipe, by projection", DPHUBERT_PROJECTED, None),
            ("top-layers", "top layers dropped", {}, "top-layers"),
        )
        # Where control matters most.
        if name != "dphubert-projected" or keep < 0.28
    ),
    *(
        Arm(
            name=f"{target.kind}-{target.text.rstrip('%')}",
            title=f"`quick`, `--target-{target.kind} {target.text}`",
            kind="target",
            target=target,
        )
        for target in (
            *(Target("macs", share) for share in MACS),
            *(Target("speed", factor) for factor in SPEEDS),
        )
    ),
)
