"""From learned gates to final masks that meet a budget exactly."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slimvox.anatomy import EncoderAnatomy
from slimvox.budget import Budget
from slimvox.errors import SlimvoxError
from slimvox.gates.gates import GateGroup, gate_spans, masks_from_vector
from slimvox.masks import EncoderMasks
from slimvox.surgery import survivors

TOLERANCE = 0.005
"""A final cost lies at most this share below the target, wherever the encoder is large enough for that."""
ATTEMPTS = 500
"""How many structures too large for what is left of the budget are passed over before the search ends."""
EXCHANGES, ATTEMPTS_AFTER_EXCHANGE = 50, 20
"""How many of them are let in after all, in exchange for others, and how many are then passed over in what is left."""


@dataclass(frozen=True, kw_only=True)
class FinalMasks:
    """Masks to cut by."""

    masks: EncoderMasks
    cost: int
    """What the sliced encoder will cost; never above the target."""
    open: Tensor
    """Which gates stay open, (gates,) bool."""


def final_masks(
    anatomy: EncoderAnatomy, groups: Sequence[GateGroup], scores: Tensor, values: Tensor, budget: Budget
) -> FinalMasks:
    """Keep the gates of the highest scores, as many as the budget allows.

    The cost is that of the encoder which surgery would leave, so a dimension in a closed head costs nothing. Where the
    next structure in line is too large for what is left of the budget (a whole block, say), it is passed over and the
    line goes on, until the cost is within 0.5 % of the target; where that does not get there, a structure that was
    passed over is let in after all, the lowest scores close in exchange, and what is then left of the budget is filled
    again. With `budget.round_to`, every width is rounded to the nearest multiple while the budget is met, by its own
    best gates.

    Args:
        anatomy: the encoder's.
        groups: the layout of the gates.
        scores: (gates,), higher stays; log_alpha, for learned gates.
        values: (gates,), above 0, the scale of a gate that stays.
        budget: what may be left.

    Raises:
        SlimvoxError: if even the smallest encoder costs more than the target.
    """
    scores, values = scores.detach().float().cpu(), values.detach().float().cpu()
    widths = _Widths(anatomy, groups, scores, budget.round_to)
    always = widths.narrowest()
    order = [i for i in torch.argsort(scores, descending=True, stable=True).tolist() if not always[i]]

    def cost_of(opened: Tensor) -> int:
        return _cost(anatomy, groups, widths.rounded(opened), budget)

    smallest = cost_of(always)
    if smallest > budget.target:
        raise SlimvoxError(_unreachable(budget, smallest))
    filled = _fill(always, order, widths, cost_of, budget.target, ATTEMPTS)
    if filled.cost < budget.target * (1 - TOLERANCE):
        small = _small_steps(filled.open, widths, cost_of, TOLERANCE * budget.target)
        for gate, closable in itertools.product(filled.passed_over[:EXCHANGES], (~always, small & ~always)):
            if filled.cost >= budget.target * (1 - TOLERANCE):
                break
            exchanged = _exchanged(
                filled.open, gate, scores, closable, widths, lambda each: cost_of(each) <= budget.target
            )
            if exchanged is None:
                continue
            closed = [i for i in order if not exchanged[i]]
            again = _fill(exchanged, closed, widths, cost_of, budget.target, ATTEMPTS_AFTER_EXCHANGE)
            if filled.cost < again.cost <= budget.target:
                filled = again
    opened = widths.rounded(filled.open)
    masks = masks_from_vector(anatomy, groups, torch.where(opened, values, torch.zeros_like(values)))
    return FinalMasks(masks=masks, cost=_cost(anatomy, groups, opened, budget), open=opened)


@dataclass(frozen=True, kw_only=True)
class _Filled:
    """What a line of gates came to."""

    open: Tensor
    cost: int
    passed_over: Sequence[int]
    """Gates that were too large for what was left of the budget, best first."""


def _fill(
    opened: Tensor,
    order: Sequence[int],
    widths: _Widths,
    cost_of: Callable[[Tensor], int],
    target: float,
    attempts: int,
) -> _Filled:
    """Open gates in the order of a line until the next one is too large; pass it over, and so on.

    Args:
        opened: (gates,) bool, open already, at a cost of at most `target`.
        order: the line of the others.
        widths: which gates make up one width.
        cost_of: cost of a choice of gates.
        target: the highest cost allowed.
        attempts: how many are passed over at most.
    """
    opened, current, line = opened.clone(), cost_of(opened), list(order)
    passed_over: list[int] = []
    for _ in range(attempts):
        # The cost grows with every gate opened: bisect for how many more of the line fit.
        fits, fits_not = 0, len(line) + 1
        while fits_not - fits > 1:
            middle = (fits + fits_not) // 2
            trial = opened.clone()
            trial[line[:middle]] = True
            trial_cost = cost_of(trial)
            if trial_cost <= target:
                fits, current = middle, trial_cost
            else:
                fits_not = middle
        opened[line[:fits]] = True
        if fits == len(line) or current >= target * (1 - TOLERANCE / 5):
            break
        passed_over.append(line[fits])
        # The others of the same width would cost as much.
        too_large = widths.unit_of[line[fits]]
        line = [gate for gate in line[fits + 1 :] if widths.unit_of[gate] != too_large]
    return _Filled(open=opened, cost=current, passed_over=passed_over)


def _exchanged(
    opened: Tensor,
    gate: int,
    scores: Tensor,
    closable: Tensor,
    widths: _Widths,
    fits: Callable[[Tensor], bool],
) -> Tensor | None:
    """One gate opened, and of the closable others as many of the lowest scores closed as it takes; None if all are not
    enough.

    Single dimensions and channels close before heads and blocks do: these would leave as large a gap as they fill.
    """
    line = [i for i in torch.argsort(scores).tolist() if opened[i] and closable[i]]
    line.sort(key=lambda each: widths.stands_alone[each])
    opened = opened.clone()
    opened[gate] = True
    fewest, enough = -1, len(line) + 1
    while enough - fewest > 1:
        middle = (fewest + enough) // 2
        trial = opened.clone()
        trial[line[:middle]] = False
        if fits(trial):
            enough = middle
        else:
            fewest = middle
    if enough > len(line):
        return None
    opened[line[:enough]] = False
    return opened


def _small_steps(opened: Tensor, widths: _Widths, cost_of: Callable[[Tensor], int], most: float) -> Tensor:
    """Gates of widths of which one step costs at most so much, (gates,) bool.

    Where a channel is let in and the lowest scores are channels again, what closes for it must come from elsewhere.
    """
    whole, small = cost_of(opened), torch.zeros_like(opened)
    for best_first in widths.several():
        still_open = best_first[opened[best_first]]
        if len(still_open) == 0:
            continue
        trial = opened.clone()
        trial[still_open[-max(1, widths.round_to) :]] = False
        if 0 < whole - cost_of(trial) <= most:
            small[best_first] = True
    return small


def smallest_cost(anatomy: EncoderAnatomy, groups: Sequence[GateGroup], budget: Budget) -> int:
    """The cost with every gate closed (but for the fewest channels that each convolution may have)."""
    scores = torch.zeros(groups[-1].stop)
    return _cost(anatomy, groups, _Widths(anatomy, groups, scores, budget.round_to).narrowest(), budget)


def check_reachable(anatomy: EncoderAnatomy, groups: Sequence[GateGroup], budget: Budget) -> None:
    """Raise `SlimvoxError` if the target is below what these gates can reach."""
    smallest = smallest_cost(anatomy, groups, budget)
    if smallest > budget.target:
        raise SlimvoxError(_unreachable(budget, smallest))


class _Widths:
    """Gates that make up one width together: the channels of a convolution, the dimensions of a head, and so on."""

    def __init__(
        self, anatomy: EncoderAnatomy, groups: Sequence[GateGroup], scores: Tensor, round_to: int
    ) -> None:
        self.round_to = round_to
        self.size = groups[-1].stop
        self.unit_of: list[int] = [0] * self.size
        """Which width a gate belongs to; gates that stand alone have one of their own."""
        self.stands_alone: list[bool] = [False] * self.size
        """Heads and blocks: gates that are no part of a width."""
        self._units: list[tuple[bool, Tensor]] = []
        """Per width with several gates: whether it must not vanish, and its gates, best first."""
        number = 0
        for group in groups:
            for start, size in gate_spans(anatomy, group):
                self.unit_of[start : start + size] = [number] * size
                number += 1
                if group.structure in ("head", "attention", "feed_forward"):
                    self.stands_alone[start : start + size] = [True] * size
                else:
                    best_first = start + torch.argsort(
                        scores[start : start + size], descending=True, stable=True
                    )
                    self._units.append((group.structure == "conv", best_first))

    def narrowest(self) -> Tensor:
        """A convolution must keep channels for anything to reach the output: its best stay open, (gates,) bool."""
        opened = torch.zeros(self.size, dtype=torch.bool)
        for must_stay, best_first in self._units:
            if must_stay:
                opened[best_first[: self.round_to]] = True
        return opened

    def several(self) -> Iterator[Tensor]:
        """The gates of each width that has several, best first."""
        for _, best_first in self._units:
            yield best_first

    def rounded(self, opened: Tensor) -> Tensor:
        """Every width at the nearest multiple, or at its full size; monotone in `opened`."""
        if self.round_to == 1:
            return opened
        result = opened.clone()
        for must_stay, best_first in self._units:
            size, count = len(best_first), int(opened[best_first].sum())
            multiple = (count + self.round_to // 2) // self.round_to * self.round_to
            nearest = size if size - count <= abs(multiple - count) else multiple
            result[best_first] = False
            result[best_first[: max(nearest, self.round_to if must_stay else 0)]] = True
        return result


def _cost(anatomy: EncoderAnatomy, groups: Sequence[GateGroup], opened: Tensor, budget: Budget) -> int:
    kept = survivors(anatomy, masks_from_vector(anatomy, groups, opened.float()))
    return budget.measure.cost(kept.anatomy(anatomy))


def _unreachable(budget: Budget, smallest: int) -> str:
    describe = budget.measure.describe
    return (
        f"the target of {describe(budget.target)} can't be reached: with the structures chosen, at least"
        f" {describe(smallest)} remain; raise the target, or switch more structures on (such as `conv`)"
    )
