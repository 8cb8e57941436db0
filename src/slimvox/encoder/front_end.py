"""The convolutional front end and the projection to the Transformer's width."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimvox.encoder.backend import backend_obstacle, inference_obstacle, module_obstacle, takes
from slimvox.encoder.convolution import ChannelNorm, ConvLayer, KeptChannels
from slimvox.encoder.linear import apply_linear, linear_map
from slimvox.encoder.sparse_taps import SparseTaps
from slimvox.encoder.spectral_convolution import SpectrumCache, spectral_convolution, spectral_obstacle
from slimvox.encoder.tiled_front_end import tiled_features, tiling_obstacle
from slimvox.structures.anatomy import EncoderAnatomy


class FeatureExtractor(nn.Module):
    """The stack of strided convolutions: 16 kHz waveform to 50 frames a second."""

    def __init__(self, anatomy: EncoderAnatomy) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList(
            ConvLayer(anatomy, index) for index in range(len(anatomy.convolutions))
        )

    def forward(
        self, waveforms: Tensor, kept: KeptChannels = None, attention_mask: Tensor | None = None
    ) -> Tensor:
        """Waveforms (batch, samples) to features (batch, frames, channels); the mask does not matter here."""
        obstacle = "channels are masked" if kept is not None else tiling_obstacle(self.conv_layers, waveforms)
        if takes("front end in tiles", obstacle):
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
        self.projection = linear_map(channels, anatomy.width)

    def forward(self, features: Tensor, kept: Tensor | None = None) -> Tensor:
        """(batch, frames, channels) to (batch, frames, width)."""
        if self.layer_norm is not None:
            features = self.layer_norm(features, kept)
        return apply_linear(self.projection, features)


class PositionalConvolution(nn.Module):
    """Grouped convolution that encodes positions for the Transformer; its weight norm is folded into plain weights."""

    def __init__(self, anatomy: EncoderAnatomy, index: int = 0) -> None:
        super().__init__()
        width, taps, groups = anatomy.width, anatomy.position_kernel, anatomy.position_groups
        self.conv: nn.Conv1d
        if anatomy.position_taps:
            self.conv = SparseTaps(width, groups, taps=taps, kept=anatomy.kept_taps(index))
        else:
            self.conv = nn.Conv1d(width, width, taps, padding=taps // 2, groups=groups)
        self.spectrum = SpectrumCache()
        self.layer_norm: nn.Module | None = None
        if anatomy.position_stack:
            self.layer_norm = nn.LayerNorm(width, elementwise_affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, frames, width) to the same shape, to be added to the input."""
        obstacle = inference_obstacle(x) or spectral_obstacle(self.conv, x)
        if takes("positional convolution by Fourier transform", obstacle):
            # In float32 under autocast too: the direct convolution in bf16 takes four times as long.
            with torch.autocast(x.device.type, enabled=False):
                return self._activated(spectral_convolution(self.conv, x, self.spectrum)).to(x.dtype)
        return self._activated(self._direct(x.transpose(1, 2)).transpose(1, 2))

    def _activated(self, x: Tensor) -> Tensor:
        return F.gelu(x if self.layer_norm is None else self.layer_norm(x))

    def _direct(self, x: Tensor) -> Tensor:
        """The convolution of x (batch, width, frames), frame by frame."""
        conv = self.conv
        if multiplied_wrongly(conv, x):
            if module_obstacle(conv, nn.Conv1d) is None:
                # With one more tap, of zeros, another kernel is used. This also removes the surplus frame.
                weight = F.pad(conv.weight, (0, 1))
                return F.conv1d(x, weight, conv.bias, padding=conv.padding, groups=conv.groups)
            return self._in_dtype_of_weights(x)
        if x.device.type == "cuda" and takes("positional convolution in float32", float32_obstacle(conv)):
            return self._in_dtype_of_weights(x).to(x.dtype)
        return self._called(x)

    def _in_dtype_of_weights(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self._called(x.to(self.conv.weight.dtype))

    def _called(self, x: Tensor) -> Tensor:
        # An even kernel with this padding gives one frame too many, the last, which the originals drop.
        y: Tensor = self.conv(x)
        return y[..., : x.shape[-1]]


class PositionalStack(nn.Module):
    """Positional convolutions one after the other."""

    def __init__(self, anatomy: EncoderAnatomy) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            PositionalConvolution(anatomy, index) for index in range(anatomy.position_layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, frames, width) to the same shape, to be added to the input."""
        for layer in self.layers:
            x = layer(x)
        return x


def float32_obstacle(convolution: nn.Conv1d) -> str | None:
    """The reason why a convolution on CUDA is not computed in float32 where autocast is on, or None.

    cuDNN's grouped convolutions are slow in bfloat16: that of WavLM-Base+ takes 13.1 ms for 10 s of audio on an H200,
    and 1.4 ms in float32.
    """
    if convolution.groups == 1:
        return "the convolution has no groups"
    if convolution.weight.dtype != torch.float32 or not torch.is_autocast_enabled("cuda"):
        return "the weights are not float32 under autocast"
    return backend_obstacle()


FEWEST_CHANNELS = 16
"""Minimum number of channels per group for which the kernel is right, see `multiplied_wrongly`."""


def multiplied_wrongly(convolution: nn.Module, x: Tensor) -> bool:
    """True if torch's own kernel may give wrong numbers for a convolution of x in half precision on a CPU.

    With oneDNN 3.x and AMX, the result of a grouped convolution in bfloat16 is wrong if its groups have less than 16
    channels and if channels times taps is a multiple of 32; its gradients are right. An odd number of taps is safe.
    """
    if x.device.type != "cpu" or not isinstance(convolution, nn.Conv1d) or convolution.groups == 1:
        return False
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    few = convolution.in_channels // convolution.groups < FEWEST_CHANNELS
    return few and convolution.kernel_size[0] % 2 == 0 and dtype in (torch.bfloat16, torch.float16)
