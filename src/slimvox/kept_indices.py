"""Which of the dense encoder's structures survived, by their original indices."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from slimvox.anatomy import ConvAnatomy, EncoderAnatomy, HeadAnatomy, LayerAnatomy

Indices = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class KeptHead:
    """One head that is left."""

    index: int
    """Its original index."""
    qk: Indices
    """Kept query and key dimensions, within the head."""
    vo: Indices
    """Kept value dimensions, within the head."""


@dataclass(frozen=True, kw_only=True)
class KeptLayer:
    """What is left of one Transformer layer."""

    attention: bool
    heads: tuple[KeptHead, ...]
    feed_forward: bool
    intermediate: Indices


@dataclass(frozen=True, kw_only=True)
class KeptIndices:
    """What is left of an encoder."""

    conv: tuple[Indices, ...]
    """Kept channels of each convolution."""
    layers: tuple[KeptLayer, ...]

    @classmethod
    def everything(cls, anatomy: EncoderAnatomy) -> KeptIndices:
        """All that an encoder has, numbered from 0 (heads by their original index)."""
        return cls(
            conv=tuple(tuple(range(convolution.channels)) for convolution in anatomy.convolutions),
            layers=tuple(
                KeptLayer(
                    attention=layer.attention,
                    heads=tuple(
                        KeptHead(index=head.index, qk=tuple(range(head.qk)), vo=tuple(range(head.vo)))
                        for head in layer.heads
                    ),
                    feed_forward=layer.feed_forward,
                    intermediate=tuple(range(layer.intermediate)),
                )
                for layer in anatomy.layers
            ),
        )

    def within(self, earlier: KeptIndices) -> KeptIndices:
        """The same selection in the numbering of an earlier encoder, of which this one's encoder was `earlier`."""
        return KeptIndices(
            conv=tuple(_pick(old, new) for old, new in zip(earlier.conv, self.conv, strict=True)),
            layers=tuple(
                _layer_within(new, old) for new, old in zip(self.layers, earlier.layers, strict=True)
            ),
        )

    def anatomy(self, anatomy: EncoderAnatomy) -> EncoderAnatomy:
        """The anatomy of what is left of an encoder of anatomy `anatomy`."""
        return replace(
            anatomy,
            convolutions=tuple(
                ConvAnatomy(channels=len(kept), kernel=old.kernel, stride=old.stride)
                for kept, old in zip(self.conv, anatomy.convolutions, strict=True)
            ),
            layers=tuple(
                LayerAnatomy(
                    attention=layer.attention,
                    heads=tuple(HeadAnatomy(index=h.index, qk=len(h.qk), vo=len(h.vo)) for h in layer.heads),
                    feed_forward=layer.feed_forward,
                    intermediate=len(layer.intermediate),
                )
                for layer in self.layers
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "conv": [list(kept) for kept in self.conv],
            "layers": [
                {
                    "attention": layer.attention,
                    "heads": [{"index": h.index, "qk": list(h.qk), "vo": list(h.vo)} for h in layer.heads],
                    "feed_forward": layer.feed_forward,
                    "intermediate": list(layer.intermediate),
                }
                for layer in self.layers
            ],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> KeptIndices:
        """The reverse of `to_dict`.

        Raises:
            ValueError: for anything else.
        """
        try:
            return cls(
                conv=tuple(_indices(kept) for kept in _list(data["conv"])),
                layers=tuple(
                    KeptLayer(
                        attention=_flag(layer["attention"]),
                        heads=tuple(
                            KeptHead(index=_index(h["index"]), qk=_indices(h["qk"]), vo=_indices(h["vo"]))
                            for h in _list(layer["heads"])
                        ),
                        feed_forward=_flag(layer["feed_forward"]),
                        intermediate=_indices(layer["intermediate"]),
                    )
                    for layer in _list(data["layers"])
                ),
            )
        except KeyError as error:
            raise ValueError(f"the field {error} is missing") from error
        except TypeError as error:
            raise ValueError(f"a value has the wrong type: {error}") from error

    def check(self, *, dense: EncoderAnatomy, kept: EncoderAnatomy) -> None:
        """Check that these are the structures of one encoder that make up another.

        Args:
            dense: anatomy of the encoder that the indices count in.
            kept: anatomy of what they leave of it.

        Raises:
            ValueError: if an index is beyond what `dense` has, or they leave something else than `kept`.
        """
        if len(self.conv) != len(dense.convolutions) or len(self.layers) != len(dense.layers):
            raise ValueError(
                f"they are of {len(self.conv)} convolutions and {len(self.layers)} layers, but the dense encoder has"
                f" {len(dense.convolutions)} and {len(dense.layers)}"
            )
        everything = KeptIndices.everything(dense)
        for number, (new, old) in enumerate(zip(self.conv, everything.conv, strict=True)):
            _check_subset(new, old, f"channels of convolution {number}")
        for number, (layer, whole) in enumerate(zip(self.layers, everything.layers, strict=True)):
            heads = {head.index: head for head in whole.heads}
            _check_subset([head.index for head in layer.heads], list(heads), f"heads of layer {number}")
            for head in layer.heads:
                name = f"head {head.index} of layer {number}"
                _check_subset(head.qk, heads[head.index].qk, f"query dimensions of {name}")
                _check_subset(head.vo, heads[head.index].vo, f"value dimensions of {name}")
            _check_subset(
                layer.intermediate, whole.intermediate, f"feed-forward dimensions of layer {number}"
            )
        if self.anatomy(dense) != kept:
            raise ValueError("what they leave of the dense encoder is not the encoder in config.json")


def _index(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"an index must be a whole number, but is {reprlib.repr(value)} instead")
    return value


def _list(values: Any) -> Sequence[Any]:
    if not isinstance(values, list | tuple):
        raise TypeError(f"there must be a list in place of {reprlib.repr(values)}")
    return values


def _indices(values: Any) -> Indices:
    return tuple(map(_index, _list(values)))


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(
            f"`attention` and `feed_forward` must be true or false, but are {reprlib.repr(value)} instead"
        )
    return value


def _check_subset(new: Sequence[int], old: Sequence[int], name: str) -> None:
    if list(new) != sorted(set(new)) or not set(new) <= set(old):
        raise ValueError(f"the {name} must be among those of the dense encoder, in order and each once")


def _layer_within(new: KeptLayer, old: KeptLayer) -> KeptLayer:
    heads = {head.index: head for head in old.heads}
    return KeptLayer(
        attention=new.attention,
        heads=tuple(
            KeptHead(
                index=head.index,
                qk=_pick(heads[head.index].qk, head.qk),
                vo=_pick(heads[head.index].vo, head.vo),
            )
            for head in new.heads
        ),
        feed_forward=new.feed_forward,
        intermediate=_pick(old.intermediate, new.intermediate),
    )


def _pick(old: Sequence[int], new: Sequence[int]) -> Indices:
    return tuple(old[index] for index in new)
