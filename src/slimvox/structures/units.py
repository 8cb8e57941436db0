"""All prunable units of an encoder in one numbering, and the ones that are left when some are removed."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.structures.base import Address, addresses, container, structure, structure_names
from slimvox.structures.base import depth as structure_depth

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Units:
    """The units of an encoder, numbered address by address in the order of `slimvox.structures.addresses`.

    N = number of units, A = number of addresses.
    """

    anatomy: EncoderAnatomy
    starts: Mapping[Address, int]
    """First unit of each address."""
    sizes: Mapping[Address, int]
    """Number of units of each address."""
    place: npt.NDArray[np.int64]
    """(N,): address that a unit belongs to, as a position in `starts`."""
    owner: npt.NDArray[np.int64]
    """(N,): the unit that contains a unit, or N if none does."""
    depth: npt.NDArray[np.int64]
    """(N,): number of units that contain a unit, one inside the other."""

    def __len__(self) -> int:
        return len(self.place)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Addresses in the order of the numbering."""
        return tuple(self.starts)

    def part(self, address: Address) -> slice:
        """Slice of an address in the numbering of the units."""
        return slice(self.starts[address], self.starts[address] + self.sizes[address])

    def left(self, kept: Bools) -> Bools:
        """Mask of the units that are left when only some are kept, (N,) bool.

        A unit is removed with the unit that contains it and, if its structure needs contents, with the last of them.

        Args:
            kept: (N,) bool.
        """
        left: Bools = kept.copy()
        for containers, contents in self._needs:
            # A container is kept if any of the units that it needs is kept.
            filled = np.zeros(len(self) + 1, dtype=bool)
            filled[self.owner[contents[kept[contents]]]] = True
            left[containers] &= filled[containers]
        for level in range(1, int(self.depth.max(initial=0)) + 1):
            inside = self.depth == level
            left[inside] &= left[self.owner[inside]]
        return left

    def counts(self, left: Bools) -> npt.NDArray[np.int64]:
        """Number of units that are left at each address, (A,)."""
        return np.bincount(self.place[left], minlength=len(self.starts))

    @functools.cached_property
    def _needs(self) -> tuple[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]], ...]:
        """Units that need contents, and the contents that they need."""
        numbers = np.arange(len(self))
        pairs = []
        for name in structure_names():
            containers = numbers[self.is_of(name)]
            for needed in structure(name).needs:
                if len(containers):
                    pairs.append((containers, numbers[self.is_of(needed)]))
        return tuple(pairs)

    def is_of(self, name: str) -> Bools:
        """Mask of the units that belong to a structure, (N,) bool."""
        of_structure = np.array([address.structure == name for address in self.starts], dtype=bool)
        belongs: Bools = of_structure[self.place] if len(self) else np.zeros(0, dtype=bool)
        return belongs


@functools.lru_cache(maxsize=64)
def _units(anatomy: EncoderAnatomy, names: tuple[str, ...]) -> Units:
    starts: dict[Address, int] = {}
    sizes: dict[Address, int] = {}
    start = 0
    for address in addresses(anatomy, names):
        starts[address] = start
        sizes[address] = sum(structure(address.structure).spans(anatomy, address.index))
        start += sizes[address]
    owner = np.full(start, start, dtype=np.int64)
    depth = np.zeros(start, dtype=np.int64)
    # Containers first, since the depth of a unit is that of its container plus one.
    for address in sorted(starts, key=lambda each: structure_depth(each.structure)):
        each, outer = structure(address.structure), container(address.structure)
        if outer is None:
            continue
        first = starts[Address(outer, address.index)]
        unit = starts[address]
        for number, span in enumerate(each.spans(anatomy, address.index)):
            owner[unit : unit + span] = first + (number if each.span_per_owner else 0)
            unit += span
        own = slice(starts[address], starts[address] + sizes[address])
        depth[own] = depth[first] + 1
    place = np.repeat(np.arange(len(starts)), list(sizes.values())).astype(np.int64)
    return Units(anatomy=anatomy, starts=starts, sizes=sizes, place=place, owner=owner, depth=depth)


def units(anatomy: EncoderAnatomy) -> Units:
    """The units of an encoder."""
    return _units(anatomy, structure_names())


class ExpectedCounts:
    """Expected number of units left at each address when some structures have independent gates.

    Exact except for units that are removed with the last of their contents: a head without open value dimensions is
    removed as a whole, but its query dimensions are counted here.
    """

    def __init__(self, anatomy: EncoderAnatomy, gated: Sequence[Address]) -> None:
        """Prepare the index tensors.

        Args:
            anatomy: the encoder's.
            gated: addresses that have gates, in the order in which their probabilities are laid out.
        """
        table = units(anatomy)
        self.addresses = table.addresses
        numbers = [np.arange(len(table))[table.part(address)] for address in gated]
        self._gated = torch.from_numpy(np.concatenate(numbers) if numbers else np.zeros(0, dtype=np.int64))
        self._lengths = torch.tensor(list(table.sizes.values()), dtype=torch.long)
        self._owners: list[Tensor] = []
        owner = table.owner
        while (owner < len(table)).any():
            self._owners.append(torch.from_numpy(owner))
            owner = np.append(table.owner, len(table))[owner]
        self._units = len(table)

    def __call__(self, probabilities: Tensor) -> Tensor:
        """Expected counts, (A,), differentiable.

        Args:
            probabilities: P(open) of each gate, (gates,), laid out like `gated`; units without gates are open.
        """
        self._to(probabilities.device)
        own = probabilities.new_ones(self._units + 1).index_copy(0, self._gated, probabilities)
        left = own[:-1]
        for owner in self._owners:
            left = left * own[owner]
        # Not `index_add`: its sums come in any order on a GPU.
        counts: Tensor = torch.segment_reduce(left, "sum", lengths=self._lengths, unsafe=True)
        return counts

    def _to(self, device: torch.device) -> None:
        if self._lengths.device != device:
            self._gated, self._lengths = self._gated.to(device), self._lengths.to(device)
            self._owners = [owner.to(device) for owner in self._owners]
