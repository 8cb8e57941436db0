"""The interface of a prunable structure, and the registry of all of them.

A structure is one kind of thing that pruning can remove: channels of a convolution, attention heads, dimensions of a
feed-forward block. Each is one file of this package; gates, masks, surgery, kept indices, costs, controls, tables and
plots iterate over the registry and name none of them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.util.registry import Registry


class Address(NamedTuple):
    """One place where a structure occurs, such as `("qk", 3)`: query and key dimensions of the fourth layer."""

    structure: str
    """Name of the structure."""
    index: int  # type: ignore[assignment]  # in place of the method of tuples
    """Index of the convolution or Transformer layer."""


class Block(NamedTuple):
    """A part of the encoder that costs are reported for, such as `("attention", 3)`."""

    kind: str
    """`front_end`, `projection`, `position`, `attention` or `feed_forward`."""
    layer: int | None = None
    """Index of the Transformer layer, for `attention` and `feed_forward`."""


class Rows(NamedTuple):
    """Entries of one parameter that belong to the units of a structure, unit after unit along one axis."""

    parameter: str
    """Name of the parameter in the encoder."""
    axis: int | None
    """Axis along which the units lie; None if all of the parameter belongs to the one unit of a block."""
    repeats: tuple[int, ...] | None = None
    """Number of entries of each unit; 1 for each if None."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """One summand of a cost: a coefficient times the numbers of units at some addresses.

    A cost is multilinear: linear in every single count, with products between different addresses only. That is why it
    can be evaluated at expected counts: gates at different addresses are independent.
    """

    block: Block
    coefficient: int | float
    factors: tuple[Address, ...] = ()
    """Addresses whose counts are multiplied; none for a constant."""
    once: bool = False
    """Count 1 if any unit at any of the factors is left, and 0 otherwise. In expectation, the containing structure
    stands in for a single factor, and 1 for several."""
    feature: str = ""
    """In times: name of the measured coefficient of the block that multiplies this term."""

    def at(self, counts: Mapping[Address, int]) -> int | float:
        """The term for given numbers of units; an address that is missing has none."""
        found = [counts.get(address, 0) for address in self.factors]
        return self.coefficient * (int(any(found)) if self.once else math.prod(found))


Kind = Literal["block", "unit", "width"]
"""`block`: one gate removes a whole block. `unit`: each gate stands alone (a head). `width`: the gates of a span are
interchangeable and make up a width, which can be rounded to a multiple."""


class Structure(ABC):
    """One kind of prunable structure.

    A *unit* is what one gate keeps or removes. The units of an address lie in *spans*, which are the widths that the
    encoder's shapes consist of: all channels of a convolution are one span, the query dimensions of each head another.
    """

    name: str
    """Identifier in recipes, files and logs."""
    title: str
    """Plural noun for tables and plots."""
    column: str = ""
    """Short heading in tables; the title if empty."""
    kind: Kind = "width"
    enabled: bool = True
    """True if recipes that do not mention the structure prune it."""
    inside: str | None = None
    """Name of the structure that contains this one; a unit is removed with the unit that contains it."""
    span_per_owner: bool = False
    """True if each unit of the containing structure holds one span; otherwise its first unit holds all."""
    contains: tuple[str, ...] = ()
    """Names of structures that lie inside this one at the same index without naming it in `inside`."""
    needs: tuple[str, ...] = ()
    """Names of contained structures: a unit that keeps no unit of one of them is removed as well."""
    min_kept: int = 0
    """Number of units of each address that are always kept."""
    multiple: int = 1
    """A width should be a multiple of this number to be computed fast (`target.fast_widths`)."""
    narrowest: int = 0
    """Minimum of a width, unless it is 0, that is worth the time that does not depend on it (`target.fast_widths`)."""
    common_width: bool = False
    """True if the spans at an index, with those of all structures that lie inside the same one and say so too, are
    computed at the width of the widest; with `target.fast_widths` they get one width."""
    per_layer: bool = True
    """True if addresses are Transformer layers; False for structures before the layers."""

    def indices(self, anatomy: EncoderAnatomy) -> Iterable[int]:
        """Indices of the addresses that an encoder could have."""
        return range(len(anatomy.layers))

    @abstractmethod
    def spans(self, anatomy: EncoderAnatomy, index: int) -> tuple[int, ...]:
        """Number of units of each span at an address; empty where the encoder has none."""

    def span_positions(self, anatomy: EncoderAnatomy, index: int) -> tuple[int, ...]:
        """Position that each span had in the dense encoder, for plots; by default, all spans are still present."""
        return tuple(range(len(self.spans(anatomy, index))))

    @abstractmethod
    def scaled(self, anatomy: EncoderAnatomy, index: int) -> tuple[Rows, ...]:
        """Parameters that a mask multiplies, unit by unit. This is the definition of a mask."""

    def cut(self, anatomy: EncoderAnatomy, index: int) -> tuple[Rows, ...]:
        """Parameters whose entries are removed with the units; none for blocks, which are removed as a whole."""
        return ()

    @abstractmethod
    def shrink(
        self, anatomy: EncoderAnatomy, index: int, kept: tuple[tuple[int, ...], ...]
    ) -> EncoderAnatomy:
        """The anatomy with the kept units only.

        Args:
            anatomy: an anatomy in which the containing structures have been shrunk already.
            index: index of the address.
            kept: positions of the kept units within each span that is left.
        """

    @abstractmethod
    def parameters(self, anatomy: EncoderAnatomy, index: int) -> Iterator[Term]:
        """Stored parameters that belong to the units of an address."""

    @abstractmethod
    def macs(self, anatomy: EncoderAnatomy, index: int, lengths: tuple[int, ...]) -> Iterator[Term]:
        """Multiply-accumulates of the units of an address for one clip.

        Args:
            anatomy: the encoder's.
            index: index of the address.
            lengths: output length of each convolution of the front end; the last is the number of frames.
        """

    @abstractmethod
    def times(self, anatomy: EncoderAnatomy, index: int, lengths: tuple[int, ...]) -> Iterator[Term]:
        """Terms to which computing time is proportional, each with a `feature`; arguments as for `macs`.

        The coefficients by which the features of a block give nanoseconds are measured (`slimvox.measure.latency`).
        """

    @abstractmethod
    def magnitude(self, parameters: Mapping[str, Tensor], anatomy: EncoderAnatomy, index: int) -> Tensor:
        """Norm of the weights behind each unit of an address, (units,)."""

    def forward_arguments(self, anatomy: EncoderAnatomy, masks: Mapping[Address, Tensor]) -> dict[str, Any]:
        """Keyword arguments that the masked encoder's forward pass needs besides the scaled parameters."""
        return {}

    def address(self, index: int) -> Address:
        """The structure's address at an index."""
        return Address(self.name, index)

    def addresses(self, anatomy: EncoderAnatomy) -> tuple[Address, ...]:
        """Addresses at which an encoder has units of this structure."""
        return tuple(
            self.address(index) for index in self.indices(anatomy) if sum(self.spans(anatomy, index))
        )


def _check_structure(structure: Structure) -> None:
    """Raise ValueError if a structure that it lies inside or contains is not registered, or one that it contains lies
    inside another one already.
    """
    for name in (*([structure.inside] if structure.inside else ()), *structure.contains):
        if name not in structure_names():
            raise ValueError(f"structure {structure.name!r} names {name!r}, which is not registered")
    for name in structure.contains:
        if container(name) is not None:
            raise ValueError(f"structure {name!r} lies inside {container(name)!r} already")


_STRUCTURES: Registry[Structure] = Registry("structure", check=_check_structure)
register_structure = _STRUCTURES.register
unregister_structure = _STRUCTURES.unregister
structure = _STRUCTURES.get
structures = _STRUCTURES.all
structure_names = _STRUCTURES.names


def container(name: str) -> str | None:
    """Name of the structure that contains another one; None if there is none."""
    inside = structure(name).inside
    if inside is not None:
        return inside
    return next((each.name for each in structures() if name in each.contains), None)


def depth(name: str) -> int:
    """Number of structures that contain a structure, one inside the other."""
    outer = container(name)
    return 0 if outer is None else 1 + depth(outer)


def addresses(anatomy: EncoderAnatomy, names: Iterable[str] | None = None) -> tuple[Address, ...]:
    """Addresses of an encoder: first those before the Transformer layers, then layer by layer.

    Args:
        anatomy: the encoder's.
        names: structures to include; all if None.
    """
    chosen = structures() if names is None else [each for each in structures() if each.name in names]
    found = [
        (each.per_layer, address.index if each.per_layer else 0, place, address)
        for place, each in enumerate(chosen)
        for address in each.addresses(anatomy)
    ]
    return tuple(address for *_, address in sorted(found, key=lambda item: item[:3]))


def with_layer(anatomy: EncoderAnatomy, index: int, **changes: Any) -> EncoderAnatomy:
    """An anatomy with fields of one Transformer layer replaced."""
    layers = list(anatomy.layers)
    layers[index] = replace(layers[index], **changes)
    return replace(anatomy, layers=tuple(layers))


def row_norms(matrix: Tensor) -> Tensor:
    """Euclidean norm of each row, (rows,)."""
    norms: Tensor = torch.linalg.vector_norm(matrix.flatten(1), dim=1)
    return norms


__all__ = [
    "Address",
    "Block",
    "Kind",
    "Rows",
    "Structure",
    "Term",
    "addresses",
    "container",
    "depth",
    "register_structure",
    "row_norms",
    "structure",
    "structure_names",
    "structures",
    "unregister_structure",
    "with_layer",
]
