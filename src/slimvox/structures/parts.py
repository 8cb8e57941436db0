"""Parts of an anatomy: one convolution, one attention head, one Transformer layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

Length = TypeVar("Length", int, "Tensor")
ConvNorm = Literal["group", "layer", "none"]


@dataclass(frozen=True, kw_only=True)
class ConvAnatomy:
    """One convolution of the front end."""

    channels: int
    """Output channels."""
    kernel: int
    """Taps."""
    stride: int
    """Hop in input positions."""
    padding: int = 0
    """Number of zeros added on either side of the input."""

    def output_length(self, length: Length) -> Length:
        """Number of outputs for `length` inputs; 0 or less if there are too few inputs for one output.

        Args:
            length: an int or an integer tensor, also a symbolic one of a traced program.
        """
        # Not (length - kernel) // stride + 1: where that is negative, runtimes of exported programs round towards zero.
        return (length + 2 * self.padding - self.kernel + self.stride) // self.stride


@dataclass(frozen=True, kw_only=True)
class HeadAnatomy:
    """One attention head that was kept."""

    index: int
    """Index of the head in the original layer (WavLM's bias gate reads that slice of the layer input)."""
    qk: int
    """Number of query and key dimensions (0: attention weights come from WavLM's position bias, or are uniform)."""
    vo: int
    """Number of value and output dimensions."""


@dataclass(frozen=True, kw_only=True)
class LayerAnatomy:
    """One Transformer layer."""

    attention: bool
    """True if the attention block exists. With no heads it still adds the bias of its output projection."""
    heads: tuple[HeadAnatomy, ...]
    """The heads that were kept, in the order of their original index."""
    feed_forward: bool
    """True if the feed-forward block exists. With width 0 it still adds its output bias."""
    intermediate: int
    """Width of the feed-forward block."""

    @property
    def qk(self) -> int:
        """Query (and key) dimensions over all heads."""
        return sum(head.qk for head in self.heads)

    @property
    def vo(self) -> int:
        """Value dimensions over all heads."""
        return sum(head.vo for head in self.heads)


def dense_layer(*, heads: int, head_width: int, intermediate: int) -> LayerAnatomy:
    """A Transformer layer with all its heads and dimensions."""
    return LayerAnatomy(
        attention=True,
        heads=tuple(HeadAnatomy(index=index, qk=head_width, vo=head_width) for index in range(heads)),
        feed_forward=True,
        intermediate=intermediate,
    )
