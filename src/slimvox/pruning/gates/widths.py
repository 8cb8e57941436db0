"""Widths that gates make up, and their rounding to sizes that are computed fast."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slimvox.pruning.budget import Budget
from slimvox.pruning.gates.gates import GateLayout
from slimvox.structures import Address, structure

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class _Width:
    """The gates of one span, or a gate that stands alone."""

    best_first: Tensor
    """Gates, best first."""
    multiple: int = 1
    fewest: int = 0
    """Number of gates that are always open."""
    narrowest: int = 0
    """Minimum number of open gates, if any is open."""


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Widths that are rounded to one number: those of all heads of a layer."""

    narrowest: int
    multiple: int
    owners: list[list[int]] = field(default_factory=list)
    """For each unit that contains some of the widths (a head): their indices."""
    gates: list[int] = field(default_factory=list)
    """The gate of each such unit; none if they have no gates."""


class Widths:
    """Gates that make up one width: the channels of a convolution, the dimensions of a head, and so on."""

    def __init__(self, layout: GateLayout, scores: Tensor, budget: Budget) -> None:
        self._widths: list[_Width] = []
        self._fewest: list[tuple[int, Tensor]] = []
        """Minimum number of open gates and the gates, best first, of each group of heads or blocks."""
        self._groups: dict[Address, _Group] = {}
        self.stands_alone: list[bool] = []
        """Gates that are heads or blocks, (gates,) bool."""
        self._rounds = budget.round_to > 1 or budget.fast_widths
        self._width_of = np.zeros(layout.size, dtype=np.int64)
        self._rank = np.zeros(layout.size, dtype=np.int64)
        """Number of better gates of the same width."""
        for address in layout.slices:
            kind = structure(address.structure)
            for number, span in enumerate(layout.spans(address)):
                order = span.start + torch.argsort(scores[span], descending=True, stable=True)
                alone = kind.kind != "width"
                self.stands_alone += [alone] * len(order)
                if alone:
                    self._fewest.append((kind.min_kept, order))
                    for gate in range(span.start, span.stop):
                        self._add(_Width(best_first=torch.tensor([gate])))
                    continue
                multiple, narrowest = budget.round_to, 0
                if budget.fast_widths:
                    multiple, narrowest = max(multiple, kind.multiple), kind.narrowest
                    if kind.common_width and kind.inside is not None and len(order):
                        group = self._group(Address(kind.inside, address.index), layout, multiple, narrowest)
                        group.owners.extend([] for _ in range(number + 1 - len(group.owners)))
                        group.owners[number].append(len(self._widths))
                self._add(
                    _Width(best_first=order, multiple=multiple, fewest=kind.min_kept, narrowest=narrowest)
                )
        self._sizes = np.array([len(each.best_first) for each in self._widths], dtype=np.int64)
        grouped = [index for group in self._groups.values() for owner in group.owners for index in owner]
        self._single = sorted({*range(len(self._widths))} - {*grouped})
        # A gate of a group that is too large leaves no room for the others of the group either.
        self._step_of = np.arange(len(self._widths))
        for group in self._groups.values():
            members = [index for owner in group.owners for index in owner]
            self._step_of[members] = members[0]

    def _add(self, width: _Width) -> None:
        gates = width.best_first.numpy()
        self._width_of[gates] = len(self._widths)
        self._rank[gates] = np.arange(len(gates))
        self._widths.append(width)

    def _group(self, owner: Address, layout: GateLayout, multiple: int, narrowest: int) -> _Group:
        if owner not in self._groups:
            part = layout.slices.get(owner)
            gates = [] if part is None else [*range(part.start, part.stop)]
            self._groups[owner] = _Group(narrowest=narrowest, multiple=multiple, gates=gates)
        return self._groups[owner]

    def unit_of(self, gate: int) -> int:
        """Index of the width that a gate belongs to, or of the widths that change together with it."""
        return int(self._step_of[self._width_of[gate]])

    def narrowest(self) -> Tensor:
        """The best gates of structures that must keep some, such as channels for anything to reach the output.

        Returns:
            (gates,) bool.
        """
        opened = torch.zeros(len(self._width_of), dtype=torch.bool)
        for width in self._widths:
            opened[width.best_first[: _at_least(width)]] = True
        for fewest, best_first in self._fewest:
            opened[best_first[:fewest]] = True
        return opened

    def several(self) -> Iterator[tuple[int, Tensor]]:
        """The step and the gates, best first, of each width that is not a head or block."""
        for width in self._widths:
            if len(width.best_first) and not self.stands_alone[int(width.best_first[0])]:
                yield width.multiple, width.best_first

    def rounded(self, opened: Tensor) -> Tensor:
        """Every width rounded to the nearest multiple, or to its full size, keeping its best gates.

        With `Budget.fast_widths`, a width that would be below `Structure.narrowest` is closed or becomes that wide, and
        widths that are computed at the greatest of them (`Structure.common_width`) become their mean.
        """
        if not self._rounds:
            return opened
        gates = opened.numpy()
        counts = np.bincount(self._width_of[gates], minlength=len(self._widths))
        targets = counts.copy()
        for index in self._single:
            width, size = self._widths[index], int(self._sizes[index])
            nearest = _nearest(float(counts[index]), size, width.multiple)
            if nearest < width.narrowest:
                nearest = min(width.narrowest, size) if 2 * counts[index] >= width.narrowest else 0
            targets[index] = max(nearest, _at_least(width))
        for group in self._groups.values():
            self._round_group(group, gates, counts, targets)
        return torch.from_numpy(self._rank < targets[self._width_of])

    def _round_group(
        self, group: _Group, gates: npt.NDArray[np.bool_], counts: Counts, targets: Counts
    ) -> None:
        """Write the common width of a group's widths into `targets`, and 0 for those of units that are closed."""
        remaining, means = [], []
        for number, owner in enumerate(group.owners):
            targets[owner] = 0
            if not owner or (group.gates and not gates[group.gates[number]]):
                continue
            mean, narrowest = counts[owner].mean(), min(group.narrowest, int(self._sizes[owner].max()))
            if mean > 0 and 2 * mean >= narrowest:
                remaining += owner
                means.append(mean)
        if remaining:
            largest = int(self._sizes[remaining].max())
            common = _nearest(float(np.mean(means)), largest, group.multiple)
            targets[remaining] = np.minimum(max(common, group.narrowest), self._sizes[remaining])


def _nearest(count: float, size: int, multiple: int) -> int:
    """The multiple nearest to a number of gates, or all of them if that is nearer."""
    nearest = int(count + multiple // 2) // multiple * multiple
    return size if size - count <= abs(nearest - count) else nearest


def _at_least(width: _Width) -> int:
    """The minimum number of gates of a width, rounded up to a multiple."""
    return -(-width.fewest // width.multiple) * width.multiple
