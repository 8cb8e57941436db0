"""One convolution of the front end with its norm, which can leave masked channels out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimvox.structures.anatomy import EncoderAnatomy

KeptChannels = Sequence[Tensor | None] | None
"""Mask of each convolution, (channels,), 1 for kept and 0 for masked channels; None if all channels are kept."""


class ChannelNorm(nn.LayerNorm):
    """Layer norm over channels, the last dimension, whose statistics can leave masked channels out.

    A layer norm does not commute with removing channels. With `kept`, mean and variance are those of the kept
    channels alone, which is what the sliced encoder will compute. The output at masked channels has no meaning: the
    next module multiplies it by zero.
    """

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """Normalise x (batch, ..., channels); `kept` is 0 or 1, shape (channels,).

        It is computed in float32 or wider, under autocast too, as in torch's layer norm; only the result is rounded.
        """
        if kept is None:
            return super().forward(x)
        # The precision of the result depends on device and autocast, and is found from an empty batch.
        dtype = super().forward(x[:0]).dtype
        with torch.autocast(x.device.type, enabled=False):
            precise = torch.promote_types(x.dtype, torch.float32)
            x, kept = x.to(precise), kept.to(precise)
            count = kept.sum()
            mean = (x * kept).sum(-1, keepdim=True) / count
            centred = x - mean
            variance = (centred.square() * kept).sum(-1, keepdim=True) / count
            y = centred * torch.rsqrt(variance + self.eps) * self.weight + self.bias
            return y.to(dtype)


class ConvLayer(nn.Module):
    """Convolution, norm (where the model has one here), GELU."""

    def __init__(self, anatomy: EncoderAnatomy, index: int) -> None:
        super().__init__()
        convolution = anatomy.convolutions[index]
        inputs = anatomy.convolutions[index - 1].channels if index else anatomy.mel_bins or 1
        self.conv = nn.Conv1d(
            inputs,
            convolution.channels,
            convolution.kernel,
            stride=convolution.stride,
            padding=convolution.padding,
            bias=anatomy.conv_bias,
        )
        self.layer_norm: nn.Module | None = None
        if anatomy.conv_norm == "layer":
            self.layer_norm = ChannelNorm(convolution.channels)
        elif anatomy.conv_norm == "group" and index == 0:
            # One channel per group: the statistics are over time, so removing a channel leaves the others alone.
            self.layer_norm = nn.GroupNorm(convolution.channels, convolution.channels)

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """(batch, channels in, time) to (batch, channels out, shorter time)."""
        x = self.conv(x)
        if isinstance(self.layer_norm, ChannelNorm):
            x = self.layer_norm(x.transpose(1, 2), kept).transpose(1, 2)
        elif self.layer_norm is not None:
            x = self.layer_norm(x)
        return F.gelu(x)
