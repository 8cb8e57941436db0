"""Sparsity control: expected cost, its schedule, and the Lagrangian that enforces it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from slimvox.anatomy import EncoderAnatomy
from slimvox.cost import BlockCosts, CostKind, EncoderSizes, mac_costs, parameter_costs
from slimvox.latency.table import LatencyTable
from slimvox.units import short_number


@dataclass(frozen=True, kw_only=True)
class CostMeasure:
    """How the cost of an encoder is told: in parameters, MACs, or nanoseconds on this machine."""

    kind: CostKind = "params"
    seconds: float = 10.0
    """Length of the clip that MACs are counted for; latency is that of the table's clip."""
    latency: LatencyTable | None = None
    """For `latency` only."""

    def __post_init__(self) -> None:
        if (self.kind == "latency") != (self.latency is not None):
            raise ValueError("`latency` must be a table for the kind 'latency', and None for the others")
        if not 0 < self.seconds < math.inf:
            raise ValueError(f"`seconds` must be finite and above 0, but is {self.seconds:g} instead")

    def costs(self, anatomy: EncoderAnatomy, sizes: EncoderSizes | None = None) -> BlockCosts:
        """By block, of an encoder as it is or with other (such as expected) sizes."""
        if self.latency is not None:
            return self.latency.costs(anatomy, sizes)
        if self.kind == "macs":
            return mac_costs(anatomy, self.seconds, sizes)
        return parameter_costs(anatomy, sizes)

    def cost(self, anatomy: EncoderAnatomy) -> int:
        """Of an encoder as it is, rounded."""
        return round(float(self.costs(anatomy).total))

    def describe(self, cost: float) -> str:
        """Such as '26.5M parameters'."""
        if self.latency is not None:
            return f"{cost / 1e6:.3g} ms for {self.latency.seconds:g} s of audio"
        return f"{short_number(cost)} {'MACs' if self.kind == 'macs' else 'parameters'}"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What the pruned encoder may cost."""

    measure: CostMeasure
    """What is counted."""
    target: float
    """The highest cost allowed."""
    dense_cost: int
    """The cost of the encoder that sparsity is measured against."""
    round_to: int = 1
    """Widths and channels that are left shall be multiples of this, or all that there was."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.target) and self.target >= 0 and self.dense_cost > 0):
            raise ValueError(
                f"`target` must be at least 0 and `dense_cost` above 0, but are {self.target:g} and"
                f" {self.dense_cost} instead"
            )
        if self.round_to < 1:
            raise ValueError(f"`round_to` must be at least 1, but is {self.round_to} instead")

    @property
    def target_sparsity(self) -> float:
        """The share of the dense cost that has to go."""
        return 1 - self.target / self.dense_cost

    def expected_sparsity(self, anatomy: EncoderAnatomy, sizes: EncoderSizes) -> Tensor:
        """s = 1 - E[cost] / dense cost, differentiable where the sizes are (see `Gates.expected_sizes`)."""
        costs = self.measure.costs(anatomy, sizes)
        sparsity: Tensor = 1 - torch.as_tensor(costs.total) / self.dense_cost
        return sparsity


RampShape = Literal["linear", "geometric"]
"""Whether each step of a ramp takes the same share of the dense cost, or of what is left."""


def scheduled_target(
    step: int, ramp_steps: float, final: float, start: float = 0.0, shape: RampShape = "linear"
) -> float:
    """t: grows from `start` to `final` over `ramp_steps` steps."""
    if step >= ramp_steps:
        return final
    part = step / ramp_steps
    if shape == "geometric":
        return 1 - (1 - start) * math.pow((1 - final) / (1 - start), part)
    return start + (final - start) * part


@dataclass(frozen=True, kw_only=True)
class SparsitySchedule:
    """t over a stage that passes one size or several: it climbs to each in turn, then waits for the gates to arrive.

    The climbs take `ramp_steps` in all, each its share by height; what is left of the stage is divided evenly among the
    waits.
    """

    sparsities: tuple[float, ...]
    """What each size lacks, as a share of the dense cost, ascending."""
    ramp_steps: int
    """Steps of all climbs together; a stage that is shorter climbs throughout."""
    steps: int
    """Of the whole stage."""
    shape: RampShape = "linear"
    """Of the climbs."""

    def _climbed(self, sparsity: float) -> float:
        """The part of the ramp that lies below a sparsity, from 0 to 1."""
        last = self.sparsities[-1]
        if self.shape == "geometric":
            return math.log1p(-sparsity) / math.log1p(-last)
        return sparsity / last

    @property
    def ends(self) -> tuple[int, ...]:
        """After which step each size has had its wait; the last one's is the end of the stage."""
        ramp, last = min(self.ramp_steps, self.steps), len(self.sparsities)
        ends = (
            ramp * self._climbed(sparsity) + (self.steps - ramp) * number / last
            for number, sparsity in enumerate(self.sparsities, start=1)
        )
        return tuple(max(1, round(end)) for end in ends)

    def target(self, step: int) -> float:
        """t at a step, counted from 1."""
        start, before = 0, 0.0
        for sparsity, end in zip(self.sparsities, self.ends, strict=True):
            if step <= end:
                break
            start, before = end, sparsity
        climb = min(self.ramp_steps, self.steps) * (self._climbed(sparsity) - self._climbed(before))
        return scheduled_target(step - start, climb, sparsity, before, self.shape)


class Lagrangian(nn.Module):
    """lambda1 (s - t) + lambda2 (s - t)^2, with multipliers that ascend while everything else descends.

    Wang, Wohlwend and Lei, "Structured Pruning of Large Language Models" (EMNLP 2020), section 4. The multipliers start
    at 0 there and belong in an optimiser of their own with `maximize=True`.
    """

    def __init__(self, initial_quadratic: float = 0.0) -> None:
        """Multipliers at 0, or that of the squared gap above 0, so that the gap counts from the first step."""
        super().__init__()
        self.linear = nn.Parameter(torch.zeros(()))
        self.quadratic = nn.Parameter(torch.tensor(float(initial_quadratic)))

    def forward(self, sparsity: Tensor, target: float) -> Tensor:
        """The penalty, a scalar; below the target it pushes the sparsity up, above it pulls it down."""
        gap = sparsity - target
        return self.linear * gap + self.quadratic * gap.square()
