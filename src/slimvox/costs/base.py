"""The interface of a cost, the registry of all kinds, and how terms are added up."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
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
    """All blocks of an encoder, from the waveform upwards, including removed ones."""
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
        """Terms of the cost of an encoder with the kernels, strides and widths of `anatomy`."""

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
            blocks[term.block] = blocks.get(term.block, 0) + term.at(counts)
        return BlockCosts(blocks=blocks)

    def form(self, anatomy: EncoderAnatomy) -> CostForm:
        """The cost as a function of the counts at the addresses of an encoder."""
        return CostForm(self, anatomy)

    def of(self, anatomy: EncoderAnatomy) -> int:
        """The cost of an encoder, rounded to an integer."""
        return round(self.by_block(anatomy).total)

    def of_dense(self, anatomy: EncoderAnatomy) -> int:
        """The cost of the dense encoder that targets are shares of, rounded to an integer; `of` unless overridden."""
        return self.of(anatomy)


@dataclass(frozen=True, kw_only=True)
class CostKind:
    """One kind of cost, with functions that prepare a `Cost` for an encoder on a machine and that read a saved one."""

    name: str
    title: str
    """One line for help texts."""
    prepare: Callable[[CostContext], Cost]
    """Function that prepares the cost; it may measure the machine first, which may take a minute."""
    from_dict: Callable[[Mapping[str, Any]], Cost]
    """Function that reverses `Cost.to_dict`; raises `ValueError`, `KeyError` or `TypeError` for anything else."""
    measured: bool = False
    """True if the cost is measured on the machine, and therefore saved for a resumed run."""


@dataclass(frozen=True, kw_only=True)
class CostContext:
    """Conditions under which a cost is prepared."""

    dense: EncoderAnatomy
    """The dense encoder."""
    seconds: float
    """Length in seconds of the clip that is measured."""
    device: torch.device
    """Device of the run; the cost `latency` is measured on the CPU all the same."""
    on_progress: Callable[[str], None]
    """Function that shows a line of progress to the user."""
    runtime: str = "torch"
    """Backend of `slimvox benchmark` that computing times are measured in."""
    given: Cost | None = None
    """Cost that was measured before, perhaps on another machine, and is to be used instead of a new measurement."""


_COSTS: Registry[CostKind] = Registry("cost", option="target.kind")
register_cost = _COSTS.register
unregister_cost = _COSTS.unregister
cost_kind = _COSTS.get
cost_names = _COSTS.names


class CostForm:
    """A cost as a polynomial of counts, with coefficients added up beforehand.

    sum_k w_k prod_j n_j + sum_k v_k [some n_j > 0], for counts n at the addresses of an encoder; the products have no
    factor (constants), one (linear terms), two, or as many as a term has.
    """

    def __init__(self, cost: Cost, anatomy: EncoderAnatomy) -> None:
        """Add up the terms of a cost for one encoder; counts are laid out like `units(anatomy).addresses`."""
        places = {address: place for place, address in enumerate(units(anatomy).addresses)}
        products: dict[tuple[int, ...], float] = {}
        expected: dict[tuple[int, ...], float] = {}
        self._once: list[tuple[list[int], float]] = []
        """For each term counted once: its places and its size."""
        for term in cost.terms(anatomy):
            at = sorted(places[address] for address in term.factors if address in places)
            if not term.once and len(at) == len(term.factors):
                _add(products, at, term.coefficient)
            elif term.once and at:
                self._once.append((at, term.coefficient))
                # In expectation, the container stands in for "any unit is left", and some unit of several addresses is
                # always left.
                outer = [_container(term.factors[0], places)] if len(term.factors) == 1 else []
                _add(expected, outer, term.coefficient)
        for factors, coefficient in products.items():
            _add(expected, factors, coefficient)
        # A 1 follows the last count, to pad products that have fewer factors than the longest.
        self._products, self._expected = (_columns(each, one=len(places)) for each in (products, expected))
        self._tensors: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def exact(self, counts: npt.NDArray[np.int64]) -> float:
        """The cost at integer counts, (A,); exact, since all sums stay below 2^53."""
        factors, weights = self._products
        n = np.append(counts, 1).astype(np.float64)
        once = sum(size for at, size in self._once if n[at].any())
        return float(weights @ n[factors].prod(0)) + once

    def expected(self, counts: Tensor) -> Tensor:
        """The expected cost at expected counts, (A,) float32: a scalar in float32, differentiable.

        It takes a few operators, and none of them waits for the device. Autocast does not apply: a cost of millions is
        beyond the range of float16, and bfloat16 would round the expected sparsity to multiples of 1/256.
        """
        factors, weights = self._on(counts.device)
        n = torch.cat([counts, torch.ones_like(counts[:1])])
        with torch.autocast(counts.device.type, enabled=False):
            # Not `prod`, whose gradient has to search for zeros.
            value: Tensor = weights @ functools.reduce(torch.mul, n[factors])
        return value

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._tensors:
            factors, weights = self._expected
            with torch.inference_mode(False):
                self._tensors[device] = (
                    torch.tensor(factors, device=device),
                    torch.tensor(weights, dtype=torch.float32, device=device),
                )
        return self._tensors[device]


def _container(address: Address, places: Mapping[Address, int]) -> int:
    outer = container(address.structure)
    return places[address if outer is None else Address(outer, address.index)]


def _add(products: dict[tuple[int, ...], float], factors: Iterable[int], coefficient: float) -> None:
    key = tuple(factors)
    products[key] = products.get(key, 0.0) + coefficient


def _columns(
    products: Mapping[tuple[int, ...], float], one: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Factors of each product, (factors, products), padded with the index of a 1; and coefficients, (products,)."""
    most = max(map(len, products), default=0) or 1
    rows = [[*factors, *[one] * (most - len(factors))] for factors in products]
    return np.array(rows, dtype=np.int64).reshape(-1, most).T, np.array([*products.values()])
