"""One cost of each kind, for clips of one second, and budgets in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from slimvox.checkpoint.transformers_config import anatomy_from_config
from slimvox.costs import Cost, Macs, Parameters
from slimvox.measure.latency import LatencyTable
from slimvox.pruning.budget import Budget, ExpectedSparsity
from slimvox.pruning.gates import GateLayout, Gates, smallest_cost
from slimvox.structures.anatomy import EncoderAnatomy

TABLE = LatencyTable(
    seconds=1.0,
    device="cpu",
    threads=1,
    nanoseconds={
        "front_end": {"constant": 2e4, "first output": 3.0, "output": 9.0, "macs": 0.05},
        "projection": {"constant": 1e4, "channels": 90.0},
        "position": {"constant": 2e5, "taps": 400.0},
        "attention": {"block": 3e4, "head": 9e4, "dimensions": 700.0},
        "feed_forward": {"block": 2e4, "width": 800.0},
    },
    rest=1e5,
    error=0.05,
)
COSTS: dict[str, Cost] = {"params": Parameters(), "macs": Macs(1.0), "latency": TABLE}
SMALL = anatomy_from_config(
    {"model_type": "wavlm", "hidden_size": 192, "num_attention_heads": 6, "intermediate_size": 768},
    "test",
    normalize_waveform=False,
)
"""WavLM of the usual depth and a quarter of the base model's width."""


def expected_cost(cost: Cost, anatomy: EncoderAnatomy, gates: Gates) -> Tensor:
    """The expected cost of what gates leave, differentiable."""
    return cost.form(anatomy).expected(gates.expected_counts())


def sparsity_of(gates: Gates, kind: str = "params") -> Callable[[], Tensor]:
    """The expected sparsity of gates as they are, against the whole encoder."""
    cost = COSTS[kind]
    budget = Budget(cost=cost, target=1.0, dense_cost=cost.of(gates.anatomy))
    sparsity = ExpectedSparsity(budget, gates.anatomy)
    return lambda: sparsity(gates.expected_counts())


def budget_for(
    layout: GateLayout,
    cost: Cost,
    share: float,
    round_to: int = 1,
    fast_widths: bool = False,
) -> Budget:
    """A budget somewhere between everything closed and everything open."""
    whole = cost.of(layout.anatomy)
    budget = Budget(cost=cost, target=0, dense_cost=whole, round_to=round_to, fast_widths=fast_widths)
    smallest = smallest_cost(layout, budget)
    return replace(budget, target=smallest + share * (whole - smallest))
