"""Arms of the benchmark: what each run prunes and how, in the order in which they run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from slimvox.pruning import Control


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A kind of smaller encoder."""

    name: str
    title: str
    keep: float = 0.5
    """Share of the multiply-accumulates that is kept."""
    control: Control | None = None
    """Control of `slimvox prune`."""
    low_rank: bool = False
    """True for low-rank maps instead of pruning."""
    trained: bool = True
    """False for an encoder that is not distilled."""
    steps_factor: float = 1.0
    """Factor on the number of steps."""
    batch: int = 1
    """Windows of a step."""
    more_audio: bool = False
    """True to train on all windows that the data gives."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the recipe that differ from those of the other arms."""
    seeds: int = 1


ARMS = (
    Arm(name="keep-50", title="slimvox, 50 %", seeds=3),
    Arm(name="low-rank-untrained", title="low rank, 50 %, not distilled", low_rank=True, trained=False),
    Arm(name="low-rank", title="low rank, 50 %", low_rank=True),
    Arm(name="top-layers", title="layers dropped from the top, 50 %", control="top-layers"),
    Arm(name="magnitude", title="smallest weights removed, 50 %", control="magnitude"),
    Arm(name="random", title="random gates, 50 %", control="random"),
    Arm(name="keep-28", title="slimvox, 28 %", keep=0.28),
    Arm(name="keep-75", title="slimvox, 75 %", keep=0.75),
    Arm(name="keep-50-short", title="slimvox, 50 %, a third of the steps", steps_factor=1 / 3),
    Arm(
        name="keep-50-states",
        title="slimvox, 50 %, all states, teacher forcing",
        steps_factor=4 / 3,
        settings={"distillation.layers": 25, "finish.teacher_forcing": 1.0},
    ),
    Arm(name="keep-50-long", title="slimvox, 50 %, three times the steps", steps_factor=3.0),
)
ON_A_GPU = tuple(
    Arm(name=f"{name}-gpu", title=title, batch=32, more_audio=True, **options)
    for name, title, options in (
        ("keep-50", "slimvox, 50 %", {}),
        ("keep-28", "slimvox, 28 %", {"keep": 0.28}),
        ("keep-75", "slimvox, 75 %", {"keep": 0.75}),
        ("low-rank", "low rank, 50 %", {"low_rank": True}),
    )
)
"""Arms whose steps hold 32 windows, and which are run only if they are named."""
MAIN = ARMS[0]
ORDER = (
    *((arm, 0) for arm in ARMS[:6]),
    *((MAIN, seed) for seed in range(1, MAIN.seeds)),
    *((arm, 0) for arm in (*ARMS[6:], *ON_A_GPU)),
)
"""Arm and seed of each run, the most telling ones first."""
