"""Taps of the positional convolution."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from torch import Tensor

from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.structures.base import Block, Rows, Structure, Term, row_norms

POSITION = Block("position")


class PositionTaps(Structure):
    """Taps of each positional convolution, over all its channels.

    Compared with input channels, output channels and groups, removing taps changes an encoder least for the same number
    of parameters (docs/lab-notebook.md). Any taps can go, not only the outer ones.
    """

    name = "position"
    title = "positional taps"
    kind = "unit"
    enabled = False
    min_kept = 1
    per_layer = False

    def indices(self, anatomy: EncoderAnatomy) -> range:
        """One address per positional convolution."""
        return range(anatomy.position_layers)

    def spans(self, anatomy: EncoderAnatomy, index: int) -> tuple[int, ...]:
        """All taps are one span."""
        return (len(anatomy.kept_taps(index)),)

    def scaled(self, anatomy: EncoderAnatomy, index: int) -> tuple[Rows, ...]:
        """The weights of each tap."""
        return (Rows(_weight(anatomy, index), 2),)

    def cut(self, anatomy: EncoderAnatomy, index: int) -> tuple[Rows, ...]:
        """The weights of each tap."""
        return (Rows(_weight(anatomy, index), 2),)

    def shrink(
        self, anatomy: EncoderAnatomy, index: int, kept: tuple[tuple[int, ...], ...]
    ) -> EncoderAnatomy:
        """The convolution with the taps that are kept, at their original offsets."""
        taps = [anatomy.kept_taps(each) for each in self.indices(anatomy)]
        taps[index] = tuple(taps[index][place] for place in kept[0])
        everything = all(len(each) == anatomy.position_kernel for each in taps)
        return replace(anatomy, position_taps=() if everything else tuple(taps))

    def parameters(self, anatomy: EncoderAnatomy, index: int) -> Iterator[Term]:
        """One weight per tap, output channel and input channel of its group."""
        yield Term(block=POSITION, coefficient=_products(anatomy), factors=(self.address(index),))

    def macs(self, anatomy: EncoderAnatomy, index: int, lengths: tuple[int, ...]) -> Iterator[Term]:
        """Each weight at each frame."""
        work = _products(anatomy) * lengths[-1]
        yield Term(block=POSITION, coefficient=work, factors=(self.address(index),))

    def times(self, anatomy: EncoderAnatomy, index: int, lengths: tuple[int, ...]) -> Iterator[Term]:
        """Proportional to the taps."""
        yield Term(block=POSITION, coefficient=1, factors=(self.address(index),), feature="taps")

    def magnitude(self, parameters: Mapping[str, Tensor], anatomy: EncoderAnatomy, index: int) -> Tensor:
        """Norm of the weights of each tap."""
        return row_norms(parameters[_weight(anatomy, index)].permute(2, 0, 1))


def _products(anatomy: EncoderAnatomy) -> int:
    return anatomy.width * (anatomy.width // anatomy.position_groups)


def _weight(anatomy: EncoderAnatomy, index: int) -> str:
    layer = f"layers.{index}." if anatomy.position_stack else ""
    return f"pos_conv_embed.{layer}conv.weight"
