"""Whole attention and feed-forward blocks of Transformer layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from torch import Tensor

from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.structures.base import Block, Rows, Structure, Term, row_norms, with_layer


class TransformerBlock(Structure):
    """One of the two blocks of each layer, the bias of its output map included.

    A block whose contents are all removed is still a block: it adds its output bias.
    """

    kind = "block"

    def __init__(
        self, name: Literal["attention", "feed_forward"], title: str, output: str, gone: Mapping[str, Any]
    ) -> None:
        """Describe a block.

        Args:
            name: name of the block, of its module in a layer, and of its field in `LayerAnatomy`.
            title: plural noun for tables and plots.
            output: name of the output map in the module.
            gone: fields of a `LayerAnatomy` without the block.
        """
        self.name, self.title, self.output, self.gone = name, title, output, gone

    def spans(self, anatomy: EncoderAnatomy, index: int) -> tuple[int, ...]:
        """One unit where the block exists."""
        return (1,) if getattr(anatomy.layers[index], self.name) else ()

    def scaled(self, anatomy: EncoderAnatomy, index: int) -> tuple[Rows, ...]:
        """The whole output map."""
        return tuple(Rows(f"{self._output(index)}.{part}", None) for part in ("weight", "bias"))

    def shrink(
        self, anatomy: EncoderAnatomy, index: int, kept: tuple[tuple[int, ...], ...]
    ) -> EncoderAnatomy:
        """The layer without the block and its contents, unless it is kept."""
        return anatomy if kept[0] else with_layer(anatomy, index, **self.gone)

    def parameters(self, anatomy: EncoderAnatomy, index: int) -> Iterator[Term]:
        """Output bias, and in pre-norm layers the norm (a post-norm layer always keeps both norms)."""
        size = anatomy.width + (2 * anatomy.width if anatomy.pre_norm else 0)
        yield Term(block=Block(self.name, index), coefficient=size, factors=(self.address(index),))

    def macs(self, anatomy: EncoderAnatomy, index: int, lengths: tuple[int, ...]) -> Iterator[Term]:
        """None besides those of the contents."""
        yield from ()

    def times(self, anatomy: EncoderAnatomy, index: int, lengths: tuple[int, ...]) -> Iterator[Term]:
        """One constant per block."""
        factors = (self.address(index),)
        yield Term(block=Block(self.name, index), coefficient=1, factors=factors, feature="block")

    def magnitude(self, parameters: Mapping[str, Tensor], anatomy: EncoderAnatomy, index: int) -> Tensor:
        """Norm of the output map."""
        return row_norms(parameters[f"{self._output(index)}.weight"].flatten()[None])

    def _output(self, index: int) -> str:
        return f"layers.{index}.{self.name}.{self.output}"


ATTENTION = TransformerBlock("attention", "attention blocks", "out_proj", {"attention": False, "heads": ()})
FEED_FORWARD = TransformerBlock(
    "feed_forward", "feed-forward blocks", "output_dense", {"feed_forward": False, "intermediate": 0}
)
