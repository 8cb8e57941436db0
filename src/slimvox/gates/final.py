"""From learned gates to final masks that meet a budget exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slimvox.anatomy import EncoderAnatomy
from slimvox.cost import CostKind, cost
from slimvox.errors import SlimvoxError
from slimvox.gates.gates import GateGroup, masks_from_vector
from slimvox.masks import EncoderMasks
from slimvox.surgery import survivors
from slimvox.units import short_number

TOLERANCE = 0.005
"""A final cost lies at most this share below the target, wherever the encoder is large enough for that."""
ATTEMPTS = 500
"""How many structures too large for what is left of the budget are passed over before the search ends."""


@dataclass(frozen=True, kw_only=True)
class FinalMasks:
    """Masks to cut by."""

    masks: EncoderMasks
    cost: int
    """What the sliced encoder will cost; never above the target."""
    open: Tensor
    """Which gates stay open, (gates,) bool."""


def final_masks(
    anatomy: EncoderAnatomy,
    groups: Sequence[GateGroup],
    scores: Tensor,
    values: Tensor,
    *,
    target: float,
    kind: CostKind,
    seconds: float = 10.0,
) -> FinalMasks:
    """Keep the gates of the highest scores, as many as the target cost allows.

    The cost is that of the encoder which surgery would leave, so a dimension in a closed head costs nothing. Where the
    next structure in line is too large for what is left of the budget (a whole block, say), it is passed over
    and the line
    goes on, until the cost is within 0.5 % of the target.

    Args:
        anatomy: the encoder's.
        groups: the layout of the gates.
        scores: (gates,), higher stays; log_alpha, for learned gates.
        values: (gates,), above 0, the scale of a gate that stays.
        target: the highest cost allowed, in parameters or MACs.
        kind: what `target` counts.
        seconds: length of the clip for MACs.

    Raises:
        SlimvoxError: if even the smallest encoder costs more than the target.
    """
    scores, values = scores.detach().float().cpu(), values.detach().float().cpu()
    always = _always_open(groups, scores)
    order = [i for i in torch.argsort(scores, descending=True, stable=True).tolist() if not always[i]]

    def cost_of(opened: Tensor) -> int:
        kept = survivors(anatomy, masks_from_vector(anatomy, groups, opened.float()))
        return cost(kept.anatomy(anatomy), kind, seconds=seconds)

    opened = always.clone()
    current = cost_of(opened)
    if current > target:
        raise SlimvoxError(_unreachable(kind, target, current))
    for _ in range(ATTEMPTS):
        # The cost grows with every gate opened: bisect for how many more of the line fit.
        fits, fits_not = 0, len(order) + 1
        while fits_not - fits > 1:
            middle = (fits + fits_not) // 2
            trial = opened.clone()
            trial[order[:middle]] = True
            trial_cost = cost_of(trial)
            if trial_cost <= target:
                fits, current = middle, trial_cost
            else:
                fits_not = middle
        opened[order[:fits]] = True
        order = order[fits + 1 :]
        if not order or current >= target * (1 - TOLERANCE / 5):
            break
    masks = masks_from_vector(anatomy, groups, torch.where(opened, values, torch.zeros_like(values)))
    return FinalMasks(masks=masks, cost=cost_of(opened), open=opened)


def smallest_cost(
    anatomy: EncoderAnatomy, groups: Sequence[GateGroup], kind: CostKind, *, seconds: float = 10.0
) -> int:
    """The cost with every gate closed (but for one channel of each convolution)."""
    size = groups[-1].stop
    opened = _always_open(groups, torch.zeros(size))
    kept = survivors(anatomy, masks_from_vector(anatomy, groups, opened.float()))
    return cost(kept.anatomy(anatomy), kind, seconds=seconds)


def check_reachable(
    anatomy: EncoderAnatomy,
    groups: Sequence[GateGroup],
    kind: CostKind,
    *,
    target: float,
    seconds: float = 10.0,
) -> None:
    """Raise `SlimvoxError` if the target is below what these gates can reach."""
    smallest = smallest_cost(anatomy, groups, kind, seconds=seconds)
    if smallest > target:
        raise SlimvoxError(_unreachable(kind, target, smallest))


def _always_open(groups: Sequence[GateGroup], scores: Tensor) -> Tensor:
    """A convolution must keep a channel for anything to reach the output: its best gate stays open."""
    opened = torch.zeros(groups[-1].stop, dtype=torch.bool)
    for group in groups:
        if group.structure == "conv":
            opened[group.start + int(scores[group.slice].argmax())] = True
    return opened


def _unreachable(kind: CostKind, target: float, smallest: int) -> str:
    unit = "parameters" if kind == "params" else "MACs"
    return (
        f"the target of {short_number(target)} {unit} can't be reached: with the structures chosen, at least"
        f" {short_number(smallest)}"
        f" remain; raise the target, or switch more structures on (such as `conv`)"
    )
