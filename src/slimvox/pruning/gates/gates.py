"""All gates of an encoder: one vector of locations, from which masks are sampled and expected counts computed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from slimvox.pruning.gates.hard_concrete import location, open_probability, sample
from slimvox.pruning.masks import masks_of
from slimvox.structures import Address, addresses, structure, structure_names
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.structures.units import ExpectedCounts, units
from slimvox.util.errors import SlimvoxError


class GateLayout:
    """Layout of an encoder's gates in one vector: address by address, in the order of `addresses`."""

    def __init__(self, anatomy: EncoderAnatomy, names: Collection[str]) -> None:
        """Lay out the gates of the named structures.

        Raises:
            KeyError: if a name is not that of a structure.
        """
        unknown = sorted(set(names) - set(structure_names()))
        if unknown:
            raise KeyError(f"no structure is named {', '.join(unknown)}")
        self.anatomy = anatomy
        table = units(anatomy)
        self.slices: dict[Address, slice] = {}
        """Slice of the vector for each address."""
        start = 0
        for address in addresses(anatomy, names):
            self.slices[address] = slice(start, start + table.sizes[address])
            start += table.sizes[address]
        self.size = start
        """Number of gates."""

    def __bool__(self) -> bool:
        return self.size > 0

    def spans(self, address: Address) -> tuple[slice, ...]:
        """Slices of the vector for the widths at an address."""
        start = self.slices[address].start
        spans = []
        for size in structure(address.structure).spans(self.anatomy, address.index):
            spans.append(slice(start, start + size))
            start += size
        return tuple(spans)

    def masks(self, values: Tensor) -> dict[Address, Tensor]:
        """Masks with the values of a vector, (gates,); units without a gate are not masked."""
        return masks_of({address: each.stop - each.start for address, each in self.slices.items()}, values)

    def by_structure(self, values: Tensor) -> dict[str, Tensor]:
        """The values of a vector (gates,) by structure, over all layers."""
        parts: dict[str, list[Tensor]] = {}
        for address, each in self.slices.items():
            parts.setdefault(address.structure, []).append(values[each])
        return {name: torch.cat(part) for name, part in parts.items()}


class Gates(nn.Module):
    """Hard concrete gates for the chosen structures of an encoder.

    Attributes:
        log_alpha: the locations of all gates, (gates,) float32, laid out like `layout`.
        layout: addresses of the gates.
    """

    def __init__(
        self,
        anatomy: EncoderAnatomy,
        names: Collection[str],
        *,
        initial_drop: float = 0.01,
        initial_drops: Mapping[str, float] = MappingProxyType({}),
        straight_through: bool = True,
    ) -> None:
        """Gates that start open.

        Args:
            anatomy: the encoder's.
            names: structures to gate.
            initial_drop: sets the first log_alpha to log((1 - drop) / drop).
            initial_drops: the drop rates of single structures, which replace `initial_drop`.
            straight_through: see `hard_concrete.sample`.

        Raises:
            KeyError: if a name is not that of a structure.
            SlimvoxError: if the encoder has none of the structures.
        """
        super().__init__()
        self.anatomy = anatomy
        self.layout = GateLayout(anatomy, names)
        if not self.layout:
            raise SlimvoxError(
                "the encoder has none of the structures to be pruned"
                f" ({', '.join(sorted(names)) or 'none is chosen'}); switch others on"
            )
        self.straight_through = straight_through
        log_alpha = torch.full((self.layout.size,), location(initial_drop))
        for address, each in self.layout.slices.items():
            if address.structure in initial_drops:
                log_alpha[each] = location(initial_drops[address.structure])
        self.log_alpha = nn.Parameter(log_alpha)
        self._counts = ExpectedCounts(anatomy, tuple(self.layout.slices))

    def draw(self, generator: torch.Generator | None = None) -> Tensor:
        """Noise for `masks`, (gates,), uniform between 0 and 1. `generator` is a CPU generator."""
        return torch.rand(self.log_alpha.shape, generator=generator).to(self.log_alpha.device)

    def sample(self, generator: torch.Generator | None = None) -> dict[Address, Tensor]:
        """Random masks, differentiable in log_alpha. `generator` is a CPU generator."""
        return self.masks(self.draw(generator))

    def masks(self, u: Tensor) -> dict[Address, Tensor]:
        """The masks that some noise gives, differentiable in log_alpha; see `draw`."""
        with torch.autocast(self.log_alpha.device.type, enabled=False):
            values = sample(self.log_alpha.float(), u, straight_through=self.straight_through)
        return self.layout.masks(values)

    def expected_counts(self) -> Tensor:
        """Expected number of units that surgery would leave at each address of the encoder.

        Exact except for units that are removed with the last of a kind: a head without open value dimensions is removed
        as a whole, but its query dimensions are counted here; WavLM's bias gate goes with the last head of a block, and
        the bias table with the last head of all, and here they stay.

        Returns:
            (addresses,) float32, differentiable, in the order of `slimvox.structures.units.units`.
        """
        return self._counts(open_probability(self.log_alpha.float()))


BINS = 20
"""Number of bins of equal width over P(z > 0) from 0 to 1."""


@torch.no_grad()
def gate_histograms(gates: Gates) -> dict[str, list[int]]:
    """Histograms of the probability of being open, by structure.

    Returns:
        For each gated structure `BINS` counts over all layers, from surely closed to surely open.
    """
    probability = open_probability(gates.log_alpha.detach().float()).cpu()
    return {
        structure: torch.histc(part, BINS, 0.0, 1.0).int().tolist()
        for structure, part in gates.layout.by_structure(probability).items()
    }
