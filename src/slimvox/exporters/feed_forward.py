"""The feed-forward block as two products with stored matrices, with its sign reversed."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from slimvox.encoder.layer import FeedForward


class NegatedFeedForward(nn.Module):
    """`FeedForward` with its sign reversed."""

    def __init__(self, feed_forward: FeedForward) -> None:
        super().__init__()
        first, second = feed_forward.intermediate_dense, feed_forward.output_dense
        self.weight = nn.Parameter(first.weight.detach().T.contiguous())
        self.bias = nn.Parameter(first.bias.detach())
        self.out_weight = nn.Parameter(-second.weight.detach().T.contiguous())
        self.out_bias = nn.Parameter(-second.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(batch, frames, width) to the same shape, to be subtracted from the input."""
        if not len(self.bias):
            return self.out_bias.expand_as(x)
        return F.gelu(x @ self.weight + self.bias) @ self.out_weight + self.out_bias
