"""The interface of a cost, the registry of all kinds, and how terms are added up."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slimvox.structures import Address, Block, Term, container
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.structures.units import units
from slimvox.util.registry import Registry

Number = int | float


@dataclass(frozen=True, kw_only=True)
class BlockCosts:
    """A cost, split by block of the encoder."""

    blocks: Mapping[Block, Number]

    @property
    def total(self) -> Number:
        """The sum of all blocks."""
        return sum(self.blocks.values())

    def kind(self, kind: str) -> Number:
        """The sum over all blocks of a kind, such as `attention`."""
        return sum(cost for block, cost in self.blocks.items() if block.kind == kind)

    def layer(self, index: int) -> Number:
        """The sum over the blocks of a Transformer layer."""
        return sum(cost for block, cost in self.blocks.items() if block.layer == index)


BLOCK_KINDS = {
    "front_end": "front end",
    "projection": "projection",
    "position": "position",
    "attention": "attention",
    "feed_forward": "feed-forward",
}
"""Kinds of blocks, from the waveform upwards, with their titles."""
LAYER_BLOCKS = ("attention", "feed_forward")
"""Kinds of blocks that each Transformer layer has."""


def encoder_blocks(anatomy: EncoderAnatomy) -> tuple[Block, ...]:
    """All blocks of an encoder, from the waveform upwards, those that are gone included."""
    once = [Block(kind) for kind in BLOCK_KINDS if kind not in LAYER_BLOCKS]
    return (*once, *(Block(kind, index) for index in range(len(anatomy.layers)) for kind in LAYER_BLOCKS))


class Cost(ABC):
    """A quantity of an encoder that a budget can limit, such as its parameters.

    Subclasses give the terms; everything else follows from them.
    """

    kind: str
    """Name in recipes and on the command line (`target.kind`)."""

    @abstractmethod
    def terms(self, anatomy: EncoderAnatomy) -> Iterable[Term]:
        """Summands of the cost of an encoder of the kernels, strides and widths of `anatomy`."""

    @abstractmethod
    def describe(self, cost: float) -> str:
        """A cost with its unit, such as `26.5M parameters`."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `CostKind.from_dict` reads them."""
        return {"kind": self.kind}

    def by_block(self, anatomy: EncoderAnatomy) -> BlockCosts:
        """The cost of each block of an encoder."""
        counts = {address: size for address, size in units(anatomy).sizes.items()}
        blocks: dict[Block, Number] = dict.fromkeys(encoder_blocks(anatomy), 0)
        for term in self.terms(anatomy):
            value: Number = term.coefficient
            found = [counts.get(address, 0) for address in term.factors]
            value *= int(any(found)) if term.once else math.prod(found)
            blocks[term.block] = blocks.get(term.block, 0) + value
        return BlockCosts(blocks=blocks)

    def form(self, anatomy: EncoderAnatomy) -> CostForm:
        """The cost as a function of the counts at the addresses of an encoder."""
        return CostForm(self, anatomy)

    def of(self, anatomy: EncoderAnatomy) -> int:
        """The cost of an encoder, rounded."""
        return round(self.by_block(anatomy).total)


@dataclass(frozen=True, kw_only=True)
class CostKind:
    """One kind of cost: how to get a `Cost` for an encoder on a machine, and how to read it again."""

    name: str
    title: str
    """One line for help texts."""
    prepare: Callable[[CostContext], Cost]
    """Gives the cost; may measure the machine first, which may take a minute."""
    from_dict: Callable[[Mapping[str, Any]], Cost]
    """The reverse of `Cost.to_dict`; raises `ValueError`, `KeyError` or `TypeError` for anything else."""
    measured: bool = False
    """True if the cost is measured on the machine, and therefore saved for a resumed run."""


@dataclass(frozen=True, kw_only=True)
class CostContext:
    """Conditions under which a cost is prepared."""

    dense: EncoderAnatomy
    """The dense encoder."""
    seconds: float
    """Length in seconds of the clip that is counted or timed."""
    device: torch.device
    """Device of the run."""
    say: Callable[[str], None]
    """Shows a line of progress to the user."""


_COSTS: Registry[CostKind] = Registry("cost", option="target.kind")
register_cost = _COSTS.register
unregister_cost = _COSTS.unregister
cost_kind = _COSTS.get
cost_names = _COSTS.names


class CostForm:
    """A cost as a function of counts, with coefficients added up beforehand.

    c + sum_i a_i n_i + sum_k w_k n_i(k) n_j(k) + sum_k v_k [n_i(k) > 0], for counts n at the addresses of an encoder.
    """

    def __init__(self, cost: Cost, anatomy: EncoderAnatomy) -> None:
        """Add up the terms of a cost for one encoder; counts are laid out like `units(anatomy).addresses`."""
        places = {address: place for place, address in enumerate(units(anatomy).addresses)}
        self.constant = 0.0
        self.linear = np.zeros(len(places))
        pairs: list[tuple[int, int, float]] = []
        self._once: list[tuple[list[int], int | None, float]] = []
        """For each term counted once: its places, the place of the container of a single one, its size."""
        for term in cost.terms(anatomy):
            at = [places[address] for address in term.factors if address in places]
            if term.once:
                outer = _container(term.factors[0], places) if len(term.factors) == 1 and at else None
                self._once.append((at, outer, term.coefficient))
            elif len(at) < len(term.factors):
                continue
            elif len(at) == 2:
                pairs.append((at[0], at[1], term.coefficient))
            elif len(at) == 1:
                self.linear[at[0]] += term.coefficient
            else:
                self.constant += term.coefficient
        self._pairs = _columns(pairs)
        self._tensors: dict[torch.device, Sequence[Tensor]] = {}

    def exact(self, counts: npt.NDArray[np.int64]) -> float:
        """The cost at integer counts, (A,); exact, since all sums stay below 2^53."""
        n = counts.astype(np.float64)
        first, second, weights = self._pairs
        once = sum(size for at, _, size in self._once if n[at].any())
        return float(self.constant + self.linear @ n + weights @ (n[first] * n[second])) + once

    def expected(self, counts: Tensor) -> Tensor:
        """The expected cost at expected counts, (A,) float32: a scalar, differentiable."""
        linear, first, second, weights = self._on(counts.device)
        # In expectation, some unit of several addresses is always left.
        constant = self.constant + sum(size for at, outer, size in self._once if at and outer is None)
        return constant + linear @ counts + weights @ (counts[first] * counts[second])

    def _on(self, device: torch.device) -> Sequence[Tensor]:
        if device not in self._tensors:
            linear = self.linear.copy()
            # In expectation, the container stands in for "any unit is left".
            for _, outer, size in self._once:
                if outer is not None:
                    linear[outer] += size
            first, second, weights = self._pairs
            with torch.inference_mode(False):
                self._tensors[device] = [
                    torch.tensor(linear, dtype=torch.float32, device=device),
                    torch.tensor(first, device=device),
                    torch.tensor(second, device=device),
                    torch.tensor(weights, dtype=torch.float32, device=device),
                ]
        return self._tensors[device]


def _container(address: Address, places: Mapping[Address, int]) -> int:
    outer = container(address.structure)
    return places[address if outer is None else Address(outer, address.index)]


def _columns(
    rows: Sequence[tuple[int, int, float]],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    return (
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[1] for row in rows], dtype=np.int64),
        np.array([row[2] for row in rows], dtype=np.float64),
    )
