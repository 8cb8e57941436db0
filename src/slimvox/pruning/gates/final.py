"""Final masks, which meet a budget exactly, from learned gates."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from slimvox.pruning.budget import Budget
from slimvox.pruning.gates.gates import GateLayout
from slimvox.pruning.gates.hard_concrete import typical_open_value
from slimvox.pruning.gates.widths import Widths
from slimvox.pruning.masks import Masks
from slimvox.structures import structure_names
from slimvox.structures.units import units
from slimvox.util.errors import SlimvoxError

TOLERANCE = 0.005
"""Maximum share by which a final cost is below the target, if the encoder is large enough for that."""
ATTEMPTS = 100
"""Number of gates too large for the remaining budget after which filling, or exchanging, ends."""


@dataclass(frozen=True, kw_only=True)
class FinalMasks:
    """Final masks and the encoder's cost with them."""

    masks: Masks
    cost: int
    """Cost of the sliced encoder; never above the target."""
    open: Tensor
    """Gates that stay open, (gates,) bool."""


def final_masks(layout: GateLayout, scores: Tensor, values: Tensor, budget: Budget) -> FinalMasks:
    """Keep the gates with the highest scores, as many as the budget allows.

    The cost is that of the encoder which surgery would leave, so a dimension in a closed head costs nothing. Gates open
    in the order of their scores; one that is too large for the remaining budget (such as a whole block) is skipped. If
    the result is more than 0.5 % below the target, skipped gates are opened one by one, and gates with low scores are
    closed in exchange. With `budget.round_to` or `budget.fast_widths`, widths are rounded, see `Widths.rounded`.

    Args:
        layout: the layout of the gates.
        scores: (gates,), the highest are kept; log_alpha, for learned gates.
        values: (gates,), above 0, the scales of kept gates.
        budget: maximum cost, and the kind of cost.

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
    search = _Search(layout, scores, budget)
    smallest = search.cost(search.always)
    if smallest > budget.target:
        raise SlimvoxError(_unreachable(layout, budget, smallest))
    opened, passed_over = search.fill(search.always)
    for gate in passed_over:
        if search.is_near(opened):
            break
        if not opened[gate]:
            trials = [search.fill(exchanged)[0] for exchanged in search.exchanges(opened, gate)]
            opened = max([opened, *trials], key=search.cost)
    # Once, as in `search.cost`: applied to its own result, `rounded` may change widths again.
    kept = search.widths.rounded(opened)
    masks = layout.masks(torch.where(kept, values, torch.zeros_like(values)))
    return FinalMasks(masks=masks, cost=search.cost(opened), open=kept)


def surviving_values(log_alpha: Tensor, kind: str) -> Tensor:
    """Values of gates that survive, (gates,), of the kind `gates.final_values` of a recipe: `soft` or `one`."""
    return typical_open_value(log_alpha) if kind == "soft" else torch.ones_like(log_alpha)


def smallest_cost(layout: GateLayout, budget: Budget) -> int:
    """The cost with every gate closed (except for the units that each structure must keep)."""
    search = _Search(layout, torch.zeros(layout.size), budget)
    return search.cost(search.always)


def check_reachable(layout: GateLayout, budget: Budget) -> None:
    """Raise `SlimvoxError` if the target is below the smallest cost that these gates allow."""
    smallest = smallest_cost(layout, budget)
    if smallest > budget.target:
        raise SlimvoxError(_unreachable(layout, budget, smallest))


class _Search:
    """Sets of open gates, (gates,) bool, that cost at most the target."""

    def __init__(self, layout: GateLayout, scores: Tensor, budget: Budget) -> None:
        self._budget = budget
        self._form = budget.cost.form(layout.anatomy)
        self._units = units(layout.anatomy)
        self._gated = [(self._units.part(address), gates) for address, gates in layout.slices.items()]
        self.widths = Widths(layout, scores, budget)
        self.always = self.widths.narrowest()
        """Gates that never close."""
        self._best_first: list[int] = torch.argsort(scores, descending=True, stable=True).tolist()
        self._closable: tuple[list[int], list[int]] | None = None

    def cost(self, opened: Tensor) -> int:
        """Cost of the encoder that surgery would leave. It does not fall as gates open."""
        rounded = self.widths.rounded(opened).numpy()
        kept = np.ones(len(self._units), dtype=bool)
        for unit, gates in self._gated:
            kept[unit] = rounded[gates]
        return round(self._form.exact(self._units.counts(self._units.left(kept))))

    def is_near(self, opened: Tensor, tolerance: float = TOLERANCE) -> bool:
        """True if the cost is within a share of the target."""
        return self.cost(opened) >= self._budget.target * (1 - tolerance)

    def fill(self, opened: Tensor) -> tuple[Tensor, list[int]]:
        """Open further gates by score while the target allows; also returns those passed over, best first.

        If a gate is too large for the remaining budget, so are the other gates of its width.
        """
        line = [gate for gate in self._best_first if not opened[gate]]
        passed_over: list[int] = []
        while True:
            fit = self._fitting(opened, line)
            opened = _with(opened, line[:fit], True)
            if fit == len(line) or len(passed_over) == ATTEMPTS or self.is_near(opened, TOLERANCE / 5):
                return opened, passed_over
            passed_over.append(line[fit])
            too_large = self.widths.unit_of(line[fit])
            line = [gate for gate in line[fit + 1 :] if self.widths.unit_of(gate) != too_large]

    def _fitting(self, opened: Tensor, line: Sequence[int]) -> int:
        """Number of gates from the front of a list that fit into the budget."""
        return _first(len(line), lambda count: not self._fits(_with(opened, line[: count + 1], True)))

    def exchanges(self, opened: Tensor, gate: int) -> Iterator[Tensor]:
        """Open one gate and close as few others as necessary, lowest scores first, in up to two ways.

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
        """Close as few gates from the front of a list as necessary to meet the target; None if all are not enough."""
        enough = _first(len(line) + 1, lambda count: self._fits(_with(opened, line[:count], False)))
        return None if enough > len(line) else _with(opened, line[:enough], False)

    def _fits(self, opened: Tensor) -> bool:
        return self.cost(opened) <= self._budget.target

    def _small_steps(self, opened: Tensor) -> Tensor:
        """Gates of widths in which one step costs at most the tolerance, (gates,) bool."""
        whole, small = self.cost(opened), torch.zeros_like(opened)
        for step, best_first in self.widths.several():
            # Gates that never close are not in it: no convolution may lose its last channel.
            still_open = best_first[opened[best_first] & ~self.always[best_first]]
            trial = _with(opened, still_open[-step:].tolist(), False)
            small[best_first] = 0 < whole - self.cost(trial) <= TOLERANCE * self._budget.target
        return small


def _first(stop: int, holds: Callable[[int], bool]) -> int:
    """The first number from 0 for which a condition holds that stays true from there on; `stop` if none does."""
    return bisect_left(range(stop), True, key=holds)


def _with(opened: Tensor, gates: Sequence[int], state: bool) -> Tensor:
    changed = opened.clone()
    changed[list(gates)] = state
    return changed


def or_more_structures(layout: GateLayout) -> str:
    """End of a sentence about a target out of reach: a structure that could be pruned too, or nothing."""
    pruned = {address.structure for address in layout.slices}
    others = [name for name in ("conv", *structure_names()) if name not in pruned]
    return f", or switch more structures on (such as `{others[0]}`)" if others else ""


def _unreachable(layout: GateLayout, budget: Budget, smallest: int) -> str:
    describe = budget.cost.describe
    return (
        f"the target of {describe(budget.target)} cannot be reached: with the structures chosen, at least"
        f" {describe(smallest)} remain; raise the target{or_more_structures(layout)}"
    )
