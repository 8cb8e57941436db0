"""The convolutional front end and the projection to the Transformer's width."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimvox.anatomy import EncoderAnatomy
from slimvox.encoder.inference import inference_on_cpu
from slimvox.encoder.linear import PackedLinear
from slimvox.encoder.plain import is_plain
from slimvox.encoder.spectral_convolution import spectral_convolution, suits_spectral
from slimvox.encoder.tiled_front_end import may_be_tiled, tiled_features

KeptChannels = Sequence[Tensor | None] | None
"""Per convolution, 1 where a channel is kept and 0 where it is masked, shape (channels,); None: all are kept."""


class ChannelNorm(nn.LayerNorm):
    """Layer norm over channels, the last dimension, whose statistics can leave masked channels out.

    A layer norm does not commute with removing channels. With `kept`, mean and variance are those of the kept
    channels alone, which is what the sliced encoder will compute. What comes out at masked channels is of no
    meaning: whoever consumes them multiplies by zero.
    """

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """Normalise x (..., channels); `kept` is 0 or 1, shape (channels,)."""
        if kept is None:
            return super().forward(x)
        kept = kept.to(x.dtype)
        count = kept.sum()
        mean = (x * kept).sum(-1, keepdim=True) / count
        centred = x - mean
        variance = (centred.square() * kept).sum(-1, keepdim=True) / count
        return centred * torch.rsqrt(variance + self.eps) * self.weight + self.bias


class ConvLayer(nn.Module):
    """Convolution, norm (where the model has one here), GELU."""

    def __init__(self, anatomy: EncoderAnatomy, index: int) -> None:
        super().__init__()
        convolution = anatomy.convolutions[index]
        inputs = anatomy.convolutions[index - 1].channels if index else 1
        self.conv = nn.Conv1d(
            inputs,
            convolution.channels,
            convolution.kernel,
            stride=convolution.stride,
            bias=anatomy.conv_bias,
        )
        self.layer_norm: nn.Module | None = None
        if anatomy.conv_norm == "layer":
            self.layer_norm = ChannelNorm(convolution.channels)
        elif index == 0:
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


class FeatureExtractor(nn.Module):
    """The stack of strided convolutions: 16 kHz waveform to 50 frames a second."""

    def __init__(self, anatomy: EncoderAnatomy) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList(
            ConvLayer(anatomy, index) for index in range(len(anatomy.convolutions))
        )

    def forward(self, waveforms: Tensor, kept: KeptChannels = None) -> Tensor:
        """Waveforms (batch, samples) to features (batch, frames, channels)."""
        if kept is None and inference_on_cpu(waveforms) and may_be_tiled(self.conv_layers):
            return tiled_features(self.conv_layers, waveforms)
        x = waveforms.unsqueeze(1)
        for index, layer in enumerate(self.conv_layers):
            x = layer(x, None if kept is None else kept[index])
        return x.transpose(1, 2)


class FeatureProjection(nn.Module):
    """Layer norm over the front end's channels (not in every HuBERT), then a linear map to the model's width."""

    def __init__(self, anatomy: EncoderAnatomy) -> None:
        super().__init__()
        channels = anatomy.convolutions[-1].channels
        self.layer_norm = (
            ChannelNorm(channels, eps=anatomy.layer_norm_eps) if anatomy.projection_norm else None
        )
        self.projection = PackedLinear(channels, anatomy.width)

    def forward(self, features: Tensor, kept: Tensor | None = None) -> Tensor:
        """(batch, frames, channels) to (batch, frames, width)."""
        if self.layer_norm is not None:
            features = self.layer_norm(features, kept)
        projected: Tensor = self.projection(features)
        return projected


class PositionalConvolution(nn.Module):
    """Grouped convolution that tells the Transformer where it is; the weight norm is folded into plain weights."""

    def __init__(self, anatomy: EncoderAnatomy) -> None:
        super().__init__()
        self.conv = nn.Conv1d(
            anatomy.width,
            anatomy.width,
            anatomy.position_kernel,
            padding=anatomy.position_kernel // 2,
            groups=anatomy.position_groups,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, frames, width) to the same shape: what is to be added."""
        frames = x.shape[1]
        if inference_on_cpu(x) and is_plain(self.conv, nn.Conv1d) and suits_spectral(self.conv):
            # In float32 under autocast too: the direct convolution in bf16 takes four times as long.
            with torch.autocast(x.device.type, enabled=False):
                return F.gelu(spectral_convolution(self.conv, x.float())).to(x.dtype)
        # An even kernel with this padding gives one frame too many, the last, which the originals drop.
        positions = self.conv(x.transpose(1, 2))[..., :frames]
        return F.gelu(positions).transpose(1, 2)
