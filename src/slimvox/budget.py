"""Sparsity control: expected cost, its schedule, and the Lagrangian that enforces it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slimvox.anatomy import EncoderAnatomy
from slimvox.cost import CostKind, EncoderSizes, cost, mac_costs, parameter_costs


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What the pruned encoder may cost."""

    kind: CostKind
    """What is counted."""
    target: float
    """The highest cost allowed, in parameters or MACs."""
    dense_cost: int
    """The cost of the encoder that sparsity is measured against."""
    seconds: float = 10.0
    """Length of the clip that MACs are counted for."""

    @property
    def target_sparsity(self) -> float:
        """The share of the dense cost that has to go."""
        return 1 - self.target / self.dense_cost

    def cost(self, anatomy: EncoderAnatomy) -> int:
        """The cost of an encoder."""
        return cost(anatomy, self.kind, seconds=self.seconds)

    def expected_sparsity(self, anatomy: EncoderAnatomy, sizes: EncoderSizes) -> Tensor:
        """s = 1 - E[cost] / dense cost, differentiable where the sizes are (see `Gates.expected_sizes`)."""
        costs = (
            parameter_costs(anatomy, sizes)
            if self.kind == "params"
            else mac_costs(anatomy, self.seconds, sizes)
        )
        sparsity: Tensor = 1 - torch.as_tensor(costs.total) / self.dense_cost
        return sparsity


def scheduled_target(step: int, ramp_steps: int, final: float, start: float = 0.0) -> float:
    """t: grows linearly from `start` to `final` over `ramp_steps` steps."""
    if step >= ramp_steps:
        return final
    return start + (final - start) * step / ramp_steps


class Lagrangian(nn.Module):
    """lambda1 (s - t) + lambda2 (s - t)^2, with multipliers that ascend while everything else descends.

    Wang, Wohlwend and Lei, "Structured Pruning of Large Language Models" (EMNLP 2020), section 4. The multipliers start
    at 0 and belong in an optimiser of their own with `maximize=True`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Parameter(torch.zeros(()))
        self.quadratic = nn.Parameter(torch.zeros(()))

    def forward(self, sparsity: Tensor, target: float) -> Tensor:
        """The penalty, a scalar; below the target it pushes the sparsity up, above it pulls it down."""
        gap = sparsity - target
        return self.linear * gap + self.quadratic * gap.square()
