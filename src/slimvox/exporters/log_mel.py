"""Whisper's front end as matrix products, including the Fourier transform, which a runtime therefore need not have."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimvox.encoder.convolution import ConvLayer
from slimvox.encoder.log_mel import (
    MelFeatureExtractor,
    mel_constants,
    mirrored,
    scaled_logarithm,
    window_mask,
)
from slimvox.exporters.crop import pad
from slimvox.exporters.front_end import aligned_patches, patches
from slimvox.structures.anatomy import MEL_HOP, MEL_WINDOW


class MatrixLogMel(nn.Module):
    """`LogMel` with the transform of each window as one product with a constant."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        window, filters = mel_constants(bins, torch.float64, torch.device("cpu"))
        frequency, time = torch.arange(MEL_WINDOW // 2 + 1), torch.arange(MEL_WINDOW)
        angle = 2 * math.pi / MEL_WINDOW * (time[:, None] * frequency % MEL_WINDOW).double()
        transform = torch.cat([torch.cos(angle), torch.sin(angle)], 1) * window[:, None]
        self.transform = nn.Parameter(transform.float().contiguous())
        # Both squares of a frequency are added by the filters.
        self.filters = nn.Parameter(torch.cat([filters, filters], 1).T.float().contiguous())

    def forward(self, waveforms: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Waveforms (batch, samples) to (batch, windows, bins)."""
        windows = waveforms.shape[1] // MEL_HOP
        extended = mirrored(waveforms, attention_mask)
        # Number of whole hops that a window covers.
        shifts = -(-MEL_WINDOW // MEL_HOP)
        extended = pad(extended, (0, (windows + shifts - 1) * MEL_HOP - extended.shape[1]))
        cut = aligned_patches(extended.unsqueeze(-1), MEL_WINDOW, MEL_HOP)
        cut = pad(cut, (0, 0, 0, 1 - shifts))
        mel = (cut @ self.transform).square() @ self.filters
        kept = window_mask(attention_mask, windows)
        return scaled_logarithm(mel, None if kept is None else kept.transpose(1, 2))


class PaddedConvolution(nn.Module):
    """A zero-padded convolution with GELU, channels last."""

    def __init__(self, convolution: nn.Conv1d) -> None:
        super().__init__()
        self.kernel, self.stride = convolution.kernel_size[0], convolution.stride[0]
        assert isinstance(convolution.padding, tuple)
        self.padding = convolution.padding[0]
        weight = convolution.weight.detach().permute(2, 1, 0).reshape(-1, convolution.out_channels)
        self.weight = nn.Parameter(weight.contiguous())
        assert convolution.bias is not None
        self.bias = nn.Parameter(convolution.bias.detach())

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """(batch, time, channels in) to (batch, time / stride, channels out); `kept` is for the masked student only."""
        x = F.pad(x, (0, 0, self.padding, self.padding))
        return F.gelu(patches(x, self.kernel, self.stride) @ self.weight + self.bias)


class MatrixMelFrontEnd(nn.Module):
    """`MelFeatureExtractor` from `MatrixLogMel` and `PaddedConvolution`."""

    def __init__(self, extractor: MelFeatureExtractor) -> None:
        super().__init__()
        self.log_mel = MatrixLogMel(extractor.log_mel.bins)
        layers = [layer for layer in extractor.conv_layers if isinstance(layer, ConvLayer)]
        self.conv_layers = nn.ModuleList(PaddedConvolution(layer.conv) for layer in layers)

    def forward(
        self, waveforms: Tensor, kept_channels: None = None, attention_mask: Tensor | None = None
    ) -> Tensor:
        """Waveforms (batch, samples) to features (batch, windows, channels)."""
        x: Tensor = self.log_mel(waveforms, attention_mask)
        kept = window_mask(attention_mask, x.shape[1])
        for layer in self.conv_layers:
            x = layer(x) if kept is None else layer(x) * kept.transpose(1, 2)
        return x
