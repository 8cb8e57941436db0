"""Dimensions between the two maps of a feed-forward block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.structures.base import Block, Rows, Structure, Term, row_norms, with_layer


class FeedForwardDimensions(Structure):
    """The width of each feed-forward block."""

    name = "intermediate"
    title = "feed-forward dimensions"
    column = "FFN"
    inside = "feed_forward"
    multiple = 16

    def spans(self, anatomy: EncoderAnatomy, index: int) -> tuple[int, ...]:
        """All dimensions of a block are one width."""
        width = anatomy.layers[index].intermediate
        return (width,) if width else ()

    def scaled(self, anatomy: EncoderAnatomy, index: int) -> tuple[Rows, ...]:
        """The columns of the output map."""
        return (Rows(f"layers.{index}.feed_forward.output_dense.weight", 1),)

    def cut(self, anatomy: EncoderAnatomy, index: int) -> tuple[Rows, ...]:
        """The rows of the first map and the columns of the second."""
        prefix = f"layers.{index}.feed_forward."
        return (
            Rows(prefix + "intermediate_dense.weight", 0),
            Rows(prefix + "intermediate_dense.bias", 0),
            Rows(prefix + "output_dense.weight", 1),
        )

    def shrink(
        self, anatomy: EncoderAnatomy, index: int, kept: tuple[tuple[int, ...], ...]
    ) -> EncoderAnatomy:
        """The block with the width that is kept."""
        return with_layer(anatomy, index, intermediate=len(kept[0])) if kept else anatomy

    def parameters(self, anatomy: EncoderAnatomy, index: int) -> Iterator[Term]:
        """A row with bias in the first map and a column in the second."""
        yield Term(
            block=Block("feed_forward", index),
            coefficient=2 * anatomy.width + 1,
            factors=(self.address(index),),
        )

    def macs(self, anatomy: EncoderAnatomy, index: int, lengths: tuple[int, ...]) -> Iterator[Term]:
        """Both maps at each frame."""
        yield Term(
            block=Block("feed_forward", index),
            coefficient=2 * anatomy.width * lengths[-1],
            factors=(self.address(index),),
        )

    def times(self, anatomy: EncoderAnatomy, index: int, lengths: tuple[int, ...]) -> Iterator[Term]:
        """Proportional to the width."""
        yield Term(
            block=Block("feed_forward", index), coefficient=1, factors=(self.address(index),), feature="width"
        )

    def magnitude(self, parameters: Mapping[str, Tensor], anatomy: EncoderAnatomy, index: int) -> Tensor:
        """Norm of the row that writes the dimension times that of the column that reads it."""
        prefix = f"layers.{index}.feed_forward."
        return row_norms(parameters[prefix + "intermediate_dense.weight"]) * row_norms(
            parameters[prefix + "output_dense.weight"].T
        )
