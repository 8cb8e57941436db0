"""Which of the dense encoder's units survived, by their original indices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from slimvox.anatomy import EncoderAnatomy
from slimvox.structures import Address, container, depth, structure
from slimvox.structures.units import Bools, units

Indices = tuple[int, ...]
FORMAT = 2
"""Version of `to_dict`; version 1 nested heads in layers and named each structure."""


@dataclass(frozen=True, kw_only=True)
class KeptIndices:
    """The units that are left of an encoder.

    The units of an address are numbered as they lie in the weights: dimension d of head h of a dense layer is
    `h * head_width + d`; a block that exists is unit 0.
    """

    units: Mapping[Address, Indices]
    """Kept units of each address; addresses with nothing left are included."""

    def __getitem__(self, address: Address | tuple[str, int]) -> Indices:
        return self.units.get(Address(*address), ())

    @classmethod
    def everything(cls, anatomy: EncoderAnatomy) -> KeptIndices:
        """All units that an encoder has."""
        return cls.of(anatomy, np.ones(len(units(anatomy)), dtype=bool))

    @classmethod
    def of(cls, anatomy: EncoderAnatomy, left: Bools) -> KeptIndices:
        """The units marked in `left`, (N,) bool in the numbering of `slimvox.structures.units`."""
        table = units(anatomy)
        return cls(
            units={
                address: tuple(np.flatnonzero(left[table.slice(address)]).tolist())
                for address in table.addresses
            }
        )

    def within(self, earlier: KeptIndices) -> KeptIndices:
        """The same selection in the numbering of an earlier encoder, of which this one's encoder was `earlier`."""
        return KeptIndices(
            units={
                address: tuple(old[index] for index in self[address])
                for address, old in earlier.units.items()
            }
        )

    def anatomy(self, anatomy: EncoderAnatomy) -> EncoderAnatomy:
        """The anatomy of what is left of an encoder of anatomy `anatomy`."""
        smaller = anatomy
        table = units(anatomy)
        # Containers before their contents, so that each finds the spans that are left.
        for address in sorted(table.addresses, key=lambda each: depth(each.structure)):
            each, outer = structure(address.structure), container(address.structure)
            kept = set(self[address])
            owners: Indices | None = None
            if outer is not None:
                owners = self[Address(outer, address.index)]
            spans, start = [], 0
            for number, size in enumerate(each.spans(anatomy, address.index)):
                exists = owners is None or (number in owners if each.span_per_owner else bool(owners))
                if exists:
                    spans.append(tuple(i for i in range(size) if start + i in kept))
                start += size
            if spans:
                smaller = each.shrink(smaller, address.index, tuple(spans))
        return smaller

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types: by structure, the kept units of each index."""
        data: dict[str, Any] = {"format": FORMAT}
        for address, indices in self.units.items():
            data.setdefault(address.structure, {})[str(address.index)] = list(indices)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], dense: EncoderAnatomy) -> KeptIndices:
        """The reverse of `to_dict`.

        Args:
            data: what `to_dict` gave, or the same of version 1.
            dense: anatomy of the encoder whose units are numbered.

        Raises:
            ValueError: if it is neither, or names units that `dense` does not have.
        """
        try:
            named = _version_1(data, dense) if "format" not in data else _version_2(data)
            everything = cls.everything(dense).units
            kept = {address: named.get(address, everything[address]) for address in everything}
            strange = [address for address in named if address not in everything]
            if strange or any(not set(kept[address]) <= set(everything[address]) for address in kept):
                raise ValueError("units that the dense encoder does not have")
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not the kept indices of such an encoder: {error}") from error
        return cls(units=kept)


def _version_2(data: Mapping[str, Any]) -> dict[Address, Indices]:
    if data["format"] != FORMAT:
        raise ValueError(f"format {data['format']} is unknown")
    return {
        Address(name, int(index)): tuple(int(unit) for unit in kept)
        for name, by_index in data.items()
        if name != "format"
        for index, kept in by_index.items()
    }


def _version_1(data: Mapping[str, Any], dense: EncoderAnatomy) -> dict[Address, Indices]:
    width = dense.head_width
    named = {Address("conv", index): tuple(kept) for index, kept in enumerate(data["conv"])}
    for index, layer in enumerate(data["layers"]):
        heads = layer["heads"]
        named[Address("attention", index)] = (0,) if layer["attention"] else ()
        named[Address("head", index)] = tuple(head["index"] for head in heads)
        for name in ("qk", "vo"):
            named[Address(name, index)] = tuple(
                head["index"] * width + i for head in heads for i in head[name]
            )
        named[Address("feed_forward", index)] = (0,) if layer["feed_forward"] else ()
        named[Address("intermediate", index)] = tuple(layer["intermediate"])
    return named
