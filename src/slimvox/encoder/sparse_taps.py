"""A convolution with only some of its taps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SparseTaps(nn.Conv1d):
    """`nn.Conv1d` of stride 1, padded by half its taps, of which only some are stored.

    The weight is packed: (channels out, channels in per group, kept taps). It computes the same as the convolution with
    all taps if those that are not stored are zero; the output has as many frames as the input.
    """

    def __init__(self, channels: int, groups: int, *, taps: int, kept: Sequence[int]) -> None:
        """A convolution with random weights.

        Args:
            channels: channels in and out.
            groups: groups of channels.
            taps: number of taps, including those that are not stored.
            kept: indices of the taps that are stored, ascending.
        """
        super().__init__(channels, channels, len(kept), groups=groups)
        self.taps = taps
        self.positions: Tensor
        self.register_buffer("positions", torch.tensor(list(kept), dtype=torch.long), persistent=False)
        # The middle tap is always included, so that the padding is never negative.
        self._first, self._last = min(kept[0], taps // 2), max(kept[-1], taps // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, frames) to the same shape."""
        # An odd number of taps, padded with a tap of zeros if necessary; see `multiplied_wrongly`.
        span = self._last - self._first + 1
        span += 1 - span % 2
        before = self.taps // 2 - self._first
        padded = F.pad(x, (before, span - 1 - before))
        weight = self._spread(span, self._first)
        return F.conv1d(padded, weight, self.bias, groups=self.groups)

    def all_taps(self) -> Tensor:
        """The weights with zeros for the taps that are not stored, (channels out, channels in per group, taps)."""
        return self._spread(self.taps, 0)

    def _spread(self, size: int, first: int) -> Tensor:
        zeros = self.weight.new_zeros(*self.weight.shape[:2], size)
        return zeros.index_copy(2, self.positions - first, self.weight)


def dense_weight(convolution: nn.Conv1d) -> Tensor:
    """The weights of a convolution, with zeros for taps that are not stored."""
    return convolution.all_taps() if isinstance(convolution, SparseTaps) else convolution.weight


def all_taps(convolution: nn.Conv1d) -> int:
    """Number of taps of a convolution, including those that are not stored."""
    return convolution.taps if isinstance(convolution, SparseTaps) else convolution.kernel_size[0]
