"""Units of the dense encoder that were kept, by their original indices."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from slimvox.structures import Address, container, depth, structure
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.structures.units import Bools, units

Indices = tuple[int, ...]
FORMAT = 2
"""Version of `to_dict`; version 1 nested heads in layers and named each structure."""


@dataclass(frozen=True, kw_only=True)
class KeptIndices:
    """The units of an encoder that were kept.

    The units of an address are numbered as they lie in the weights: dimension d of head h of a dense layer is
    `h * head_width + d`; a block that exists is unit 0.
    """

    units: Mapping[Address, Indices]
    """Kept units of each address, including addresses without any."""

    def __getitem__(self, address: Address | tuple[str, int]) -> Indices:
        return self.units.get(Address(*address), ())

    @classmethod
    def everything(cls, anatomy: EncoderAnatomy) -> KeptIndices:
        """All units that an encoder has."""
        return cls.of(anatomy, np.ones(len(units(anatomy)), dtype=bool))

    @classmethod
    def of(cls, anatomy: EncoderAnatomy, left: Bools) -> KeptIndices:
        """Kept indices from a mask `left`, (N,) bool, in the numbering of `slimvox.structures.units`."""
        table = units(anatomy)
        return cls(
            units={
                address: tuple(np.flatnonzero(left[table.part(address)]).tolist())
                for address in table.addresses
            }
        )

    def within(self, earlier: KeptIndices) -> KeptIndices:
        """The same selection in the numbering of an earlier encoder, whose kept units `earlier` are numbered here."""
        return KeptIndices(
            units={
                address: tuple(old[index] for index in self[address])
                for address, old in earlier.units.items()
            }
        )

    def anatomy(self, anatomy: EncoderAnatomy) -> EncoderAnatomy:
        """The anatomy of the kept part of an encoder whose anatomy is `anatomy`."""
        smaller = anatomy
        table = units(anatomy)
        # Containers come before their contents, so that each content is looked up in the spans that are left.
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
            data: output of `to_dict`, also that of version 1.
            dense: anatomy of the encoder whose units are numbered.

        Raises:
            ValueError: if `data` is anything else, or names units that `dense` does not have.
        """
        try:
            named = _version_1(data, dense) if "format" not in data else _version_2(data)
        except KeyError as error:
            raise ValueError(f"the field {error} is missing") from error
        except (AttributeError, TypeError) as error:
            raise ValueError("a list or an object in it has the wrong type") from error
        kept: dict[Address, Indices] = {}
        everything = cls.everything(dense).units
        recorded = {address.structure for address in named}
        for address, whole in everything.items():
            # A structure that is missing from an older file is kept whole.
            kept[address] = named.get(address, () if address.structure in recorded else whole)
            least = structure(address.structure).min_kept
            if len(kept[address]) < least:
                raise ValueError(
                    f"at least {least} of the {structure(address.structure).title} at index {address.index} must be"
                    " kept"
                )
            if list(kept[address]) != sorted(set(kept[address])) or not set(kept[address]) <= set(whole):
                raise ValueError(
                    f"the {structure(address.structure).title} at index {address.index} must be among those of the"
                    " dense encoder, in order and each once"
                )
        strange = [f"{name}[{index}]" for name, index in named if Address(name, index) not in everything]
        if strange or not recorded:
            raise ValueError(f"it is of another encoder, with {', '.join(strange) or 'nothing'}")
        table = units(dense)
        marks = np.zeros(len(table), dtype=bool)
        for address, indices in kept.items():
            marks[table.part(address)][list(indices)] = True
        if not np.array_equal(table.left(marks), marks):
            raise ValueError("it keeps units without their block or head, or heads without value dimensions")
        return cls(units=kept)


def _indices(values: Any) -> Indices:
    if not isinstance(values, list | tuple):
        raise ValueError(f"kept units must be a list, but are {reprlib.repr(values)} instead")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"an index must be a whole number, but is {reprlib.repr(value)} instead")
    return tuple(values)


def _index(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"units must be listed by the number of their layer or convolution, not by {text!r}")
    return int(text)


def _exists(flag: Any) -> Indices:
    if not isinstance(flag, bool):
        raise ValueError(f"a block must be true or false, but is {reprlib.repr(flag)} instead")
    return (0,) if flag else ()


def _version_2(data: Mapping[str, Any]) -> dict[Address, Indices]:
    if data["format"] != FORMAT:
        raise ValueError(f"its format is {data['format']!r}, which this version of slimvox does not know")
    return {
        Address(name, _index(index)): _indices(kept)
        for name, by_index in data.items()
        if name != "format"
        for index, kept in by_index.items()
    }


def _version_1(data: Mapping[str, Any], dense: EncoderAnatomy) -> dict[Address, Indices]:
    width = dense.head_width
    named = {Address("conv", index): _indices(kept) for index, kept in enumerate(data["conv"])}
    for index, layer in enumerate(data["layers"]):
        heads = layer["heads"]
        named[Address("attention", index)] = _exists(layer["attention"])
        named[Address("head", index)] = _indices([head["index"] for head in heads])
        for name in ("qk", "vo"):
            named[Address(name, index)] = tuple(
                head["index"] * width + i for head in heads for i in _indices(head[name])
            )
        named[Address("feed_forward", index)] = _exists(layer["feed_forward"])
        named[Address("intermediate", index)] = _indices(layer["intermediate"])
    return named
