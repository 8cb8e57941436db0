"""The feed-forward block as two products with stored matrices, its sign turned."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from slimvox.encoder.layer import FeedForward


class NegatedFeedForward(nn.Module):
    """`FeedForward` with its sign turned."""

    def __init__(self, feed_forward: FeedForward) -> None:
        super().__init__()
        first, second = feed_forward.intermediate_dense, feed_forward.output_dense
        self.weight = nn.Parameter(first.weight.detach().T.contiguous())
        self.bias = nn.Parameter(first.bias.detach())
        self.out_weight = nn.Parameter(-second.weight.detach().T.contiguous())
        self.out_bias = nn.Parameter(-second.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(batch, frames, width) to the same shape: what is to be subtracted."""
        if not len(self.bias):
            return self.out_bias.expand_as(x)
        return F.gelu(x @ self.weight + self.bias) @ self.out_weight + self.out_bias
