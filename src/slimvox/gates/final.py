"""From learned gates to final masks that meet a budget exactly."""

from __future__ import annotations

from bisect import bisect_left
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
ATTEMPTS = 100
"""Number of gates too large for the rest of the budget after which filling, or exchanging, ends."""


@dataclass(frozen=True, kw_only=True)
class FinalMasks:
    """Masks to cut by."""

    masks: EncoderMasks
    cost: int
    """Cost of the sliced encoder; never above the target."""
    open: Tensor
    """Which gates stay open, (gates,) bool."""


def final_masks(
    anatomy: EncoderAnatomy, groups: Sequence[GateGroup], scores: Tensor, values: Tensor, budget: Budget
) -> FinalMasks:
    """Keep the gates of the highest scores, as many as the budget allows.

    The cost is that of the encoder which surgery would leave, so a dimension in a closed head costs nothing. Gates open
    in the order of their scores; one that is too large for what is left of the budget (a whole block, say) is passed
    over. Where that ends more than 0.5 % below the target, gates that were passed over open after all, one by one, and
    gates of low scores close in exchange. With `budget.round_to`, every width is rounded to the nearest multiple, by
    its own best gates.

    Args:
        anatomy: the encoder's.
        groups: the layout of the gates.
        scores: (gates,), higher stays; log_alpha, for learned gates.
        values: (gates,), above 0, the scale of a gate that stays.
        budget: the highest cost allowed, and how it is counted.

    Raises:
        SlimvoxError: if even the smallest encoder costs more than the target, or scores are NaN or infinite.
        ValueError: if a value is not a finite number above 0, because such a gate could not stay open.
    """
    scores, values = scores.detach().float().cpu(), values.detach().float().cpu()
    if not bool(scores.isfinite().all()):
        raise SlimvoxError(
            f"{int((~scores.isfinite()).sum())} of {len(scores)} gates have a score that is NaN or infinite, so the"
            " gates to keep cannot be chosen; start again with a lower `gates.learning_rate`"
        )
    if not bool((values.isfinite() & (values > 0)).all()):
        raise ValueError(f"`values` must be finite and above 0, but one is {float(values.min())} instead")
    search = _Search(anatomy, groups, scores, budget)
    smallest = search.cost(search.always)
    if smallest > budget.target:
        raise SlimvoxError(_unreachable(budget, smallest))
    opened, passed_over = search.fill(search.always)
    for gate in passed_over:
        if search.is_near(opened):
            break
        if not opened[gate]:
            trials = [search.fill(exchanged)[0] for exchanged in search.exchanges(opened, gate)]
            opened = max([opened, *trials], key=search.cost)
    opened = search.widths.rounded(opened)
    masks = masks_from_vector(anatomy, groups, torch.where(opened, values, torch.zeros_like(values)))
    return FinalMasks(masks=masks, cost=_cost(anatomy, groups, opened, budget), open=opened)


def smallest_cost(anatomy: EncoderAnatomy, groups: Sequence[GateGroup], budget: Budget) -> int:
    """The cost with every gate closed (but for the fewest channels that each convolution may have)."""
    scores = torch.zeros(groups[-1].stop)
    return _cost(anatomy, groups, _Widths(anatomy, groups, scores, budget.round_to).narrowest(), budget)


def check_reachable(anatomy: EncoderAnatomy, groups: Sequence[GateGroup], budget: Budget) -> None:
    """Raise `SlimvoxError` if the target is below what these gates can reach."""
    smallest = smallest_cost(anatomy, groups, budget)
    if smallest > budget.target:
        raise SlimvoxError(_unreachable(budget, smallest))


class _Search:
    """Sets of open gates, (gates,) bool, that cost at most the target."""

    def __init__(
        self, anatomy: EncoderAnatomy, groups: Sequence[GateGroup], scores: Tensor, budget: Budget
    ) -> None:
        self._anatomy, self._groups, self._budget = anatomy, groups, budget
        self.widths = _Widths(anatomy, groups, scores, budget.round_to)
        self.always = self.widths.narrowest()
        """Gates that never close."""
        self._best_first: list[int] = torch.argsort(scores, descending=True, stable=True).tolist()
        self._closable: tuple[list[int], list[int]] | None = None

    def cost(self, opened: Tensor) -> int:
        """Cost of the encoder that surgery would leave. It does not fall as gates open."""
        return _cost(self._anatomy, self._groups, self.widths.rounded(opened), self._budget)

    def is_near(self, opened: Tensor, tolerance: float = TOLERANCE) -> bool:
        """Whether the cost is within a share of the target."""
        return self.cost(opened) >= self._budget.target * (1 - tolerance)

    def fill(self, opened: Tensor) -> tuple[Tensor, list[int]]:
        """Open further gates by score while the target allows; returns also those passed over, best first.

        Where a gate is too large for what is left, the other gates of its width would be so too.
        """
        line = [gate for gate in self._best_first if not opened[gate]]
        passed_over: list[int] = []
        while True:
            fit = self._fitting(opened, line)
            opened = _with(opened, line[:fit], True)
            if fit == len(line) or len(passed_over) == ATTEMPTS or self.is_near(opened, TOLERANCE / 5):
                return opened, passed_over
            passed_over.append(line[fit])
            too_large = self.widths.unit_of[line[fit]]
            line = [gate for gate in line[fit + 1 :] if self.widths.unit_of[gate] != too_large]

    def _fitting(self, opened: Tensor, line: Sequence[int]) -> int:
        """How many gates from the front of a line fit."""
        return _first(len(line), lambda count: not self._fits(_with(opened, line[: count + 1], True)))

    def exchanges(self, opened: Tensor, gate: int) -> Iterator[Tensor]:
        """Open one gate and close as few others as make it fit, lowest scores first, in up to two ways.

        Heads and blocks close last, since they would leave as large a gap as they fill; the second way closes only
        gates of widths that shrink in small steps.
        """
        if self._closable is None:
            by_score = [each for each in reversed(self._best_first) if not self.always[each]]
            small = self._small_steps(opened)
            self._closable = (
                sorted(by_score, key=lambda each: self.widths.stands_alone[each]),
                [each for each in by_score if small[each]],
            )
        for closable in self._closable:
            smaller = self._shrink(_with(opened, [gate], True), [each for each in closable if opened[each]])
            if smaller is not None:
                yield smaller

    def _shrink(self, opened: Tensor, line: Sequence[int]) -> Tensor | None:
        """Close as few gates from the front of a line as make the others fit; None if all of it is not enough."""
        enough = _first(len(line) + 1, lambda count: self._fits(_with(opened, line[:count], False)))
        return None if enough > len(line) else _with(opened, line[:enough], False)

    def _fits(self, opened: Tensor) -> bool:
        return self.cost(opened) <= self._budget.target

    def _small_steps(self, opened: Tensor) -> Tensor:
        """Gates of the widths of which one step costs at most the tolerance, (gates,) bool."""
        whole, small = self.cost(opened), torch.zeros_like(opened)
        for best_first in self.widths.several():
            # Gates that never close are not in it: no convolution may lose its last channel.
            still_open = best_first[opened[best_first] & ~self.always[best_first]]
            trial = _with(opened, still_open[-self._budget.round_to :].tolist(), False)
            small[best_first] = 0 < whole - self.cost(trial) <= TOLERANCE * self._budget.target
        return small


class _Widths:
    """Gates that make up one width together: the channels of a convolution, the dimensions of a head, and so on."""

    def __init__(
        self, anatomy: EncoderAnatomy, groups: Sequence[GateGroup], scores: Tensor, round_to: int
    ) -> None:
        self._round_to = round_to
        self.unit_of: list[int] = []
        """Which width a gate belongs to; heads and blocks have one of their own."""
        self.stands_alone: list[bool] = []
        """Which gates are heads and blocks."""
        self._several: list[tuple[bool, Tensor]] = []
        """Per width that is no head or block: whether it must not vanish, and its gates, best first."""
        number = 0
        for group in groups:
            for start, size in gate_spans(anatomy, group):
                self.unit_of += [number] * size
                number += 1
                alone = group.structure in ("head", "attention", "feed_forward")
                self.stands_alone += [alone] * size
                if not alone:
                    order = torch.argsort(scores[start : start + size], descending=True, stable=True)
                    self._several.append((group.structure == "conv", start + order))

    def narrowest(self) -> Tensor:
        """A convolution must keep channels for anything to reach the output: its best stay open, (gates,) bool."""
        opened = torch.zeros(len(self.unit_of), dtype=torch.bool)
        for must_stay, best_first in self._several:
            if must_stay:
                opened[best_first[: self._round_to]] = True
        return opened

    def several(self) -> Sequence[Tensor]:
        """The gates of each width that is no head or block, best first."""
        return [best_first for _, best_first in self._several]

    def rounded(self, opened: Tensor) -> Tensor:
        """Every width at the nearest multiple, or at its full size; monotone in `opened`."""
        if self._round_to == 1:
            return opened
        result = opened.clone()
        for must_stay, best_first in self._several:
            size, count = len(best_first), int(opened[best_first].sum())
            multiple = (count + self._round_to // 2) // self._round_to * self._round_to
            nearest = size if size - count <= abs(multiple - count) else multiple
            result[best_first] = False
            result[best_first[: max(nearest, self._round_to if must_stay else 0)]] = True
        return result


def _first(stop: int, holds: Callable[[int], bool]) -> int:
    """The first number from 0 for which a condition holds that stays true from there on; `stop` if none does."""
    return bisect_left(range(stop), True, key=holds)


def _with(opened: Tensor, gates: Sequence[int], state: bool) -> Tensor:
    changed = opened.clone()
    changed[list(gates)] = state
    return changed


def _cost(anatomy: EncoderAnatomy, groups: Sequence[GateGroup], opened: Tensor, budget: Budget) -> int:
    kept = survivors(anatomy, masks_from_vector(anatomy, groups, opened.float()))
    return budget.measure.cost(kept.anatomy(anatomy))


def _unreachable(budget: Budget, smallest: int) -> str:
    describe = budget.measure.describe
    return (
        f"the target of {describe(budget.target)} can't be reached: with the structures chosen, at least"
        f" {describe(smallest)} remain; raise the target, or switch more structures on (such as `conv`)"
    )
