"""Which of the dense encoder's structures survived, by their original indices."""

from __future__ import annotations

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
        """The reverse of `to_dict`."""
        return cls(
            conv=tuple(tuple(kept) for kept in data["conv"]),
            layers=tuple(
                KeptLayer(
                    attention=layer["attention"],
                    heads=tuple(
                        KeptHead(index=h["index"], qk=tuple(h["qk"]), vo=tuple(h["vo"]))
                        for h in layer["heads"]
                    ),
                    feed_forward=layer["feed_forward"],
                    intermediate=tuple(layer["intermediate"]),
                )
                for layer in data["layers"]
            ),
        )


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
