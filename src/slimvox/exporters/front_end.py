"""The front end as matrix products over patches, time by channels, which runtimes multiply fast and can quantise."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimvox.encoder.convolution import ChannelNorm, ConvLayer
from slimvox.encoder.front_end import FeatureExtractor
from slimvox.encoder.tiled_front_end import normalised_weight
from slimvox.exporters.crop import pad
from slimvox.structures.anatomy import EncoderAnatomy


class PatchConvolution(nn.Module):
    """A convolution of the front end with its norm and GELU, channels last.

    A group norm of one channel per group after it is folded into the weights, which avoids a second pass over the
    (long) output.
    """

    def __init__(self, layer: ConvLayer, multiple: int) -> None:
        """`multiple`: the output is padded to a multiple of it; values beyond its end have no meaning."""
        super().__init__()
        self.multiple = multiple
        convolution = layer.conv
        self.kernel, self.stride = convolution.kernel_size[0], convolution.stride[0]
        # (taps * channels in, channels out), taps slowest: the order of a patch's values in memory.
        weight = convolution.weight.detach().permute(2, 1, 0).reshape(-1, convolution.out_channels)
        self.weight = nn.Parameter(weight.contiguous())
        self.bias: Tensor | None = None if convolution.bias is None else convolution.bias.detach()
        self.norm = layer.layer_norm

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, channels in) to (batch, shorter time, channels out)."""
        if self.multiple:
            rows = patches(x, self.kernel, self.stride)
        else:
            rows = aligned_patches(x, self.kernel, self.stride)
        if isinstance(self.norm, nn.GroupNorm):
            return F.gelu(self._normalised(rows, self.norm))
        x = self._lengthened(rows) @ self.weight
        if self.bias is not None:
            x = x + self.bias
        if isinstance(self.norm, ChannelNorm):
            x = self.norm(x)
        return F.gelu(x)

    def _lengthened(self, patches: Tensor) -> Tensor:
        if not self.multiple:
            return patches
        # Without a remainder: sizes stay multiples of it in the symbols of torch.export, too.
        blocks = (patches.shape[1] + self.multiple - 1) // self.multiple
        return F.pad(patches, (0, 0, 0, blocks * self.multiple - patches.shape[1]))

    def _normalised(self, patches: Tensor, norm: nn.GroupNorm) -> Tensor:
        # The convolution's own bias goes with the mean.
        centred = patches - patches.mean(1, keepdim=True)
        covariance = centred.transpose(1, 2) @ centred / patches.shape[1]
        weight = normalised_weight(self.weight, covariance, norm)
        # The norm's bias as one more input that is always 1, again to spare a pass over the output.
        bias = norm.bias.expand(weight.shape[0], 1, -1)
        ones = torch.ones_like(centred[..., :1])
        return self._lengthened(torch.cat([centred, ones], -1)) @ torch.cat([weight, bias], 1)


class PatchFrontEnd(nn.Module):
    """All convolutions of the front end.

    The output of the first one is padded to a multiple of the following strides, so that the patches of the others are
    views of it, or a view and a shifted copy.
    """

    def __init__(self, anatomy: EncoderAnatomy, extractor: FeatureExtractor) -> None:
        super().__init__()
        self.anatomy = anatomy
        layers = [layer for layer in extractor.conv_layers if isinstance(layer, ConvLayer)]
        multiple = anatomy.hop // anatomy.convolutions[0].stride
        self.layers = nn.ModuleList(
            PatchConvolution(layer, multiple if index == 0 else 0) for index, layer in enumerate(layers)
        )

    def forward(
        self, waveforms: Tensor, kept_channels: None = None, attention_mask: Tensor | None = None
    ) -> Tensor:
        """Waveforms (batch, samples) to features (batch, frames, channels); no frames if there are too few samples."""
        frames = waveforms.shape[1]
        for convolution in self.anatomy.convolutions:
            frames = convolution.output_length(frames)
        x = waveforms.unsqueeze(-1)
        for layer in self.layers:
            x = layer(x)
        return pad(x, (0, 0, 0, frames - x.shape[1]))


def patches(x: Tensor, kernel: int, stride: int) -> Tensor:
    """(batch, time, channels) to (batch, positions, kernel * channels)."""
    batch, time, channels = x.shape
    positions = (time - kernel) // stride + 1
    parts = []
    for first in range(0, kernel, stride):
        taps = min(stride, kernel - first)
        if taps == stride:
            block = pad(x, (0, 0, -first, first + positions * stride - time))
            parts.append(block.reshape(batch, positions, stride * channels))
        else:
            parts += [x[:, tap : tap + (positions - 1) * stride + 1 : stride] for tap in range(first, kernel)]
    return torch.cat(parts, -1) if len(parts) > 1 else parts[0]


def aligned_patches(x: Tensor, kernel: int, stride: int) -> Tensor:
    """`patches` for a time that is a multiple of `stride`; the last positions may read zeros past the end."""
    batch, time, channels = x.shape
    blocks = x.reshape(batch, time // stride, stride * channels)
    parts = []
    for shift in range(-(-kernel // stride)):
        missing = max(0, (shift + 1) * stride - kernel) * channels
        # Blocks from `shift` on, without the channels of taps that the kernel does not have.
        parts.append(pad(blocks, (0, -missing, -shift, shift)) if shift or missing else blocks)
    return torch.cat(parts, -1) if len(parts) > 1 else parts[0]
