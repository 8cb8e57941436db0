"""One Transformer layer, post-norm (base models) or pre-norm (large models)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from slimvox.encoder.attention import SelfAttention
from slimvox.encoder.linear import apply_linear, linear_map
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.structures.parts import LayerAnatomy


class FeedForward(nn.Module):
    """Two linear maps with a GELU between them."""

    def __init__(self, anatomy: EncoderAnatomy, layer: LayerAnatomy) -> None:
        super().__init__()
        self.intermediate_dense = linear_map(anatomy.width, layer.intermediate)
        self.output_dense = linear_map(layer.intermediate, anatomy.width)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, frames, width) to the same shape."""
        return apply_linear(self.output_dense, apply_linear(self.intermediate_dense, x, gelu=True))


class EncoderLayer(nn.Module):
    """Attention and feed-forward blocks around a residual stream; either may have been removed.

    A post-norm layer always keeps both norms, since they act on the stream itself. In a pre-norm layer, a norm is
    removed with its block.

    Attributes:
        residual: adds the output of a block to the stream: `torch.add`, or `torch.sub` where the blocks return their
            output with its sign turned, as exported ones do.
    """

    def __init__(self, anatomy: EncoderAnatomy, layer: LayerAnatomy) -> None:
        super().__init__()
        self.pre_norm = anatomy.pre_norm
        self.residual: Callable[[Tensor, Tensor], Tensor] = torch.add
        self.attention = SelfAttention(anatomy, layer) if layer.attention else None
        self.feed_forward = FeedForward(anatomy, layer) if layer.feed_forward else None
        self.layer_norm = self._norm(anatomy, layer.attention)
        self.final_layer_norm = self._norm(anatomy, layer.feed_forward)

    def _norm(self, anatomy: EncoderAnatomy, block_exists: bool) -> nn.LayerNorm | None:
        if self.pre_norm and not block_exists:
            return None
        return nn.LayerNorm(anatomy.width, eps=anatomy.layer_norm_eps)

    def forward(self, x: Tensor, position_bias: Tensor | None, padding_bias: Tensor | None) -> Tensor:
        """(batch, frames, width) to the same shape; the biases are those of `SelfAttention.forward`."""
        if self.pre_norm:
            if self.attention is not None and self.layer_norm is not None:
                x = self.residual(x, self.attention(self.layer_norm(x), position_bias, padding_bias))
            if self.feed_forward is not None and self.final_layer_norm is not None:
                x = self.residual(x, self.feed_forward(self.final_layer_norm(x)))
            return x
        assert self.layer_norm is not None and self.final_layer_norm is not None
        if self.attention is not None:
            x = self.residual(x, self.attention(x, position_bias, padding_bias))
        x = self.layer_norm(x)
        if self.feed_forward is not None:
            x = self.residual(x, self.feed_forward(x))
        out: Tensor = self.final_layer_norm(x)
        return out
