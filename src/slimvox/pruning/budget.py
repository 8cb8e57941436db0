"""Sparsity control: the budget, expected sparsity, its schedule, and the Lagrangian that enforces it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from slimvox.costs import Cost
from slimvox.structures.anatomy import EncoderAnatomy


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Maximum cost of the pruned encoder."""

    cost: Cost
    """Cost that is limited."""
    target: float
    """Maximum value of the cost."""
    dense_cost: int
    """Cost of the encoder relative to which sparsity is measured."""
    round_to: int = 1
    """Divisor of the remaining widths and channels; a width from which nothing is removed stays unchanged."""
    fast_widths: bool = False
    """Round widths to those that are computed fast, see `Structure.multiple`, `narrowest` and `common_width`."""

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
        """Share of the dense cost to remove."""
        return 1 - self.target / self.dense_cost


class ExpectedSparsity:
    """s = 1 - E[cost] / dense cost, for the gates of one encoder."""

    def __init__(self, budget: Budget, anatomy: EncoderAnatomy) -> None:
        """Prepare the cost of encoders pruned from one of anatomy `anatomy`."""
        self._form = budget.cost.form(anatomy)
        self._dense_cost = float(budget.dense_cost)  # torch takes no whole numbers beyond 64 bits

    def __call__(self, expected_counts: Tensor) -> Tensor:
        """s, a scalar, differentiable in the expected counts (see `Gates.expected_counts`)."""
        return 1 - self._form.expected(expected_counts) / self._dense_cost


RampShape = Literal["linear", "geometric"]
"""Shape of a ramp: `linear` removes the same share of the dense cost in each step, `geometric` of the remaining
cost."""


def scheduled_target(
    step: float, ramp_steps: float, final: float, start: float = 0.0, shape: RampShape = "linear"
) -> float:
    """Scheduled target sparsity t, which grows from `start` to `final` over `ramp_steps` steps."""
    if step >= ramp_steps:
        return final
    part = step / ramp_steps
    if shape == "geometric":
        return 1 - (1 - start) * math.pow((1 - final) / (1 - start), part)
    return start + (final - start) * part


@dataclass(frozen=True, kw_only=True)
class SparsitySchedule:
    """Target sparsity t over a stage for one size or several: it rises to each in turn, then stays for the gates to
    follow.

    The rises take `ramp_steps` in all, in proportion to their heights; the rest of the stage is divided evenly among
    the waiting times.
    """

    sparsities: tuple[float, ...]
    """Target sparsity of each size, as a share of the dense cost, ascending."""
    ramp_steps: int
    """Number of steps of all rises together; in a shorter stage, the target rises throughout."""
    steps: int
    """Number of steps of the whole stage."""
    shape: RampShape = "linear"
    """Shape of the rises."""

    def _climbed(self, sparsity: float) -> float:
        """The share of the ramp, from 0 to 1, that lies below a sparsity."""
        last = self.sparsities[-1]
        if self.shape == "geometric":
            return math.log1p(-sparsity) / math.log1p(-last)
        return sparsity / last

    @property
    def ends(self) -> tuple[int, ...]:
        """Steps after which the sizes are cut, in order; the last one is the end of the stage."""
        ramp, last = min(self.ramp_steps, self.steps), len(self.sparsities)
        ends = (
            ramp * self._climbed(sparsity) + (self.steps - ramp) * number / last
            for number, sparsity in enumerate(self.sparsities, start=1)
        )
        return tuple(max(1, round(end)) for end in ends)

    def target(self, step: float) -> float:
        """Target sparsity t at a step, counted from 1."""
        start, before = 0, 0.0
        for sparsity, end in zip(self.sparsities, self.ends, strict=True):
            if step <= end:
                break
            start, before = end, sparsity
        climb = min(self.ramp_steps, self.steps) * (self._climbed(sparsity) - self._climbed(before))
        return scheduled_target(step - start, climb, sparsity, before, self.shape)


class Lagrangian(nn.Module):
    """lambda1 (s - t) + lambda2 (s - t)^2, with multipliers trained by gradient ascent and all else by descent.

    Wang, Wohlwend and Lei, "Structured Pruning of Large Language Models" (EMNLP 2020), section 4. The multipliers start
    at 0 there and belong in an optimiser of their own with `maximize=True`.
    """

    def __init__(self, initial_quadratic: float = 0.0) -> None:
        """Start with multipliers at 0, or that of the squared gap above 0 to make the gap count from the first step."""
        super().__init__()
        self.linear = nn.Parameter(torch.zeros(()))
        self.quadratic = nn.Parameter(torch.tensor(float(initial_quadratic)))

    def forward(self, sparsity: Tensor, target: float) -> Tensor:
        """The penalty, a scalar; it raises the sparsity below the target and lowers it above."""
        gap = sparsity - target
        return self.linear * gap + self.quadratic * gap.square()
