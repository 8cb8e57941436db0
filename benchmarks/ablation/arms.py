"""The arms of the ablation: what each changes, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from slimvox.pruning import Control

Kind = Literal["paper", "slimvox", "control", "idea", "size"]

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
        "gates.intermediate_initial_drop": 0.5,
    }
)
"""Peng et al., "DPHuBERT: Joint Distillation and Pruning of Self-Supervised Speech Models" (Interspeech 2023)."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to prune; every arm starts from the recipe `quick`."""

    name: str
    """Of its folder."""
    title: str
    kind: Kind
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the recipe."""
    control: Control | None = None
    keep: float = 0.28
    """The share of the dense encoder's parameters."""

    @property
    def main(self) -> bool:
        """Whether it is scored on all tasks that count, not on some."""
        return self.kind != "idea"


ARMS: tuple[Arm, ...] = (
    Arm(name="quick", title="`quick`: as shipped", kind="slimvox"),
    Arm(name="paper", title="`paper`: its structures and objective", kind="paper", overrides=PAPER),
    Arm(
        name="paper-no-ste",
        title="`paper`, without STE",
        kind="paper",
        overrides={**PAPER, "gates.straight_through": False},
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
        title="DPHuBERT's recipe, multipliers of `quick`",
        kind="paper",
        overrides={**DPHUBERT, "gates.multiplier_learning_rate": 1.0},
    ),
    Arm(name="random", title="random gates", kind="control", control="random"),
    Arm(name="magnitude", title="smallest weights", kind="control", control="magnitude"),
    Arm(name="top-layers", title="top layers dropped", kind="control", control="top-layers"),
    Arm(name="thin", title="thin, from scratch", kind="control", control="thin"),
    Arm(name="plain", title="`quick`, AdamW and no teacher forcing", kind="idea", overrides=PLAIN),
    Arm(
        name="adamw",
        title="`quick`, AdamW instead of Muon",
        kind="idea",
        overrides={"prune.matrix_optimiser": "adamw", "finish.matrix_optimiser": "adamw"},
    ),
    Arm(
        name="no-forcing",
        title="`quick`, without teacher forcing",
        kind="idea",
        overrides={"finish.teacher_forcing": 0.0},
    ),
    Arm(
        name="forcing-first",
        title="`quick`, teacher forcing in stage 1 too",
        kind="idea",
        overrides={"prune.teacher_forcing": 0.5, "prune.teacher_forcing_until": 1.0},
    ),
    Arm(
        name="no-ste",
        title="`quick`, without STE",
        kind="idea",
        overrides={"gates.straight_through": False},
    ),
    Arm(
        name="drop-1", title="`quick`, initial drop .01", kind="idea", overrides={"gates.initial_drop": 0.01}
    ),
    Arm(
        name="drop-1-no-ste",
        title="`quick`, initial drop .01, without STE",
        kind="idea",
        overrides={"gates.initial_drop": 0.01, "gates.straight_through": False},
    ),
    Arm(
        name="blocks",
        title="`quick`, with gates on whole blocks",
        kind="idea",
        overrides={"structures.attention": True, "structures.feed_forward": True},
    ),
    Arm(name="no-conv", title="`quick`, without `conv`", kind="idea", overrides={"structures.conv": False}),
    Arm(name="four-layers", title="`quick`, 4 states", kind="idea", overrides={"distillation.layers": 4}),
    Arm(
        name="groups",
        title="`quick`, 4 means over groups of states",
        kind="idea",
        overrides={"distillation.layers": 4, "distillation.targets": "groups"},
    ),
    Arm(name="maps", title="`quick`, with maps", kind="idea", overrides={"distillation.maps": True}),
    Arm(
        name="relation",
        title="`quick`, temporal relations too",
        kind="idea",
        overrides={"distillation.relation_weight": 3.0},
    ),
    Arm(
        name="masked-input",
        title="`quick`, 10 % of the input hidden",
        kind="idea",
        overrides={"distillation.masked_share": 0.1},
    ),
    Arm(
        name="adam-multipliers",
        title="`quick`, multipliers by Adam from 0",
        kind="idea",
        overrides={
            "gates.multiplier_optimiser": "adam",
            "gates.multiplier_learning_rate": 0.03,
            "gates.initial_quadratic_multiplier": 0.0,
        },
    ),
    Arm(
        name="fast-multipliers",
        title="`quick`, multipliers at four times the rate",
        kind="idea",
        overrides={"gates.multiplier_learning_rate": 4.0},
    ),
    Arm(
        name="hard-values",
        title="`quick`, gates that stay count 1",
        kind="idea",
        overrides={"gates.final_values": "one"},
    ),
    Arm(
        name="together",
        title="`quick`, relations and gates that count 1 together",
        kind="idea",
        overrides={"distillation.relation_weight": 3.0, "gates.final_values": "one"},
    ),
    *(
        Arm(
            name=f"{name}-{round(100 * (1 - keep))}",
            title=f"{title}, {round(100 * (1 - keep))} % fewer",
            kind="size",
            overrides=overrides,
            control=control,
            keep=keep,
        )
        for keep in (0.5, 0.4, 0.2, 0.1)
        for name, title, overrides, control in (
            ("quick", "`quick`", {}, None),
            ("dphubert", "DPHuBERT's recipe", DPHUBERT, None),
            ("top-layers", "top layers dropped", {}, "top-layers"),
        )
    ),
)
