"""A structure that is not part of slimvox: whole Transformer layers. docs/extending/structure.md explains it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from slimvox.structures import Rows, Structure, Term, structure
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.structures.base import with_layer

OUTPUTS = {"attention": "out_proj", "feed_forward": "output_dense"}


class WholeLayers(Structure):
    """Transformer layers, both blocks at once."""

    name = "layer"
    title = "Transformer layers"
    kind = "block"
    contains = ("attention", "feed_forward")

    def spans(self, anatomy: EncoderAnatomy, index: int) -> tuple[int, ...]:
        """One unit where any block is left."""
        layer = anatomy.layers[index]
        return (1,) if layer.attention or layer.feed_forward else ()

    def scaled(self, anatomy: EncoderAnatomy, index: int) -> tuple[Rows, ...]:
        """The output maps of both blocks."""
        return tuple(
            Rows(f"layers.{index}.{block}.{output}.{part}", None)
            for block, output in OUTPUTS.items()
            if getattr(anatomy.layers[index], block)
            for part in ("weight", "bias")
        )

    def shrink(
        self, anatomy: EncoderAnatomy, index: int, kept: tuple[tuple[int, ...], ...]
    ) -> EncoderAnatomy:
        """A layer that goes loses both blocks."""
        if kept[0]:
            return anatomy
        return with_layer(anatomy, index, attention=False, heads=(), feed_forward=False, intermediate=0)

    def parameters(self, anatomy: EncoderAnatomy, index: int) -> Iterator[Term]:
        """None beside those of the blocks."""
        yield from ()

    def macs(self, anatomy: EncoderAnatomy, index: int, lengths: tuple[int, ...]) -> Iterator[Term]:
        """None beside those of the blocks."""
        yield from ()

    def times(self, anatomy: EncoderAnatomy, index: int, lengths: tuple[int, ...]) -> Iterator[Term]:
        """None beside those of the blocks."""
        yield from ()

    def magnitude(self, parameters: Mapping[str, Tensor], anatomy: EncoderAnatomy, index: int) -> Tensor:
        """Sum of the magnitudes of the blocks."""
        blocks = [
            structure(block).magnitude(parameters, anatomy, index)
            for block in OUTPUTS
            if getattr(anatomy.layers[index], block)
        ]
        return torch.stack(blocks).sum(0)
