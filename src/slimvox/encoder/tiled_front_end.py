"""The front end for inference on a CPU: the same function, a stretch of time after the other.

The first convolutions of a front end make tensors of tens of megabytes; on a CPU a good part of their time goes into
fetching fresh pages for those and passing over them again and again. Here a stretch that fits into the cache goes
through all convolutions before the next one starts. Each convolution is a matrix product of channels-last data, whose
patches are views and not copies.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

TILE_BYTES = 4 << 20
"""Size of the largest intermediate result of a tile, roughly; smaller than a cache of the last level."""


def tiled_features(layers: nn.ModuleList, waveforms: Tensor) -> Tensor:
    """What the convolutions (each a `ConvLayer`) make of waveforms (batch, samples): (batch, frames, channels).

    Without gradients, and without masked channels.
    """
    stages = [_Stage(layer) for layer in layers]
    hop, field = 1, 1
    for stage in stages:
        field += (stage.kernel - 1) * hop
        hop *= stage.stride
    batch, samples = waveforms.shape
    frames = (samples - field) // hop + 1
    per_frame = hop // stages[0].stride * stages[0].channels * waveforms.element_size()
    tile = max(8, TILE_BYTES // per_frame)
    output = waveforms.new_empty(batch, frames, stages[-1].channels, dtype=stages[0].dtype(waveforms))
    for clip, waveform in enumerate(waveforms):
        first = stages[0].normalised(waveform) if stages[0].over_time else stages[0]
        for start in range(0, frames, tile):
            stop = min(start + tile, frames)
            x = first(waveform[start * hop : (stop - 1) * hop + field].unsqueeze(-1))
            for stage in stages[1:]:
                x = stage(x)
            output[clip, start:stop] = x
    return output


class _Stage:
    """A convolution with its norm and GELU, ready to be multiplied: (time, channels) to (shorter time, channels)."""

    def __init__(self, layer: nn.Module) -> None:
        convolution = layer.conv
        assert isinstance(convolution, nn.Conv1d)
        self.kernel, self.stride = convolution.kernel_size[0], convolution.stride[0]
        self.channels = convolution.out_channels
        self.bias = convolution.bias
        self.norm: nn.Module | None = layer.layer_norm  # type: ignore[assignment]
        self.over_time = isinstance(self.norm, nn.GroupNorm)
        # (channels in and taps, channels out), taps slowest: the order of a patch in memory.
        self.weight = convolution.weight.permute(2, 1, 0).reshape(-1, self.channels)

    def dtype(self, x: Tensor) -> torch.dtype:
        """What comes out for an x, under autocast or not."""
        if torch.is_autocast_enabled(x.device.type):
            return torch.get_autocast_dtype(x.device.type)
        return self.weight.dtype

    def normalised(self, waveform: Tensor) -> _Stage:
        """The stage for one clip, its group norm over time folded into weights and bias.

        The convolution is linear, so the variance of a channel is w' C w with C the covariance of the patches.
        """
        norm = self.norm
        assert isinstance(norm, nn.GroupNorm)
        folded = object.__new__(_Stage)
        folded.__dict__.update(self.__dict__)
        with torch.autocast(waveform.device.type, enabled=False):
            patches = waveform.double().unfold(0, self.kernel, self.stride)
            mean = patches.mean(0)
            centred = patches - mean
            covariance = centred.T @ centred / len(centred)
            weight = self.weight.double()
            variance = (weight * (covariance @ weight)).sum(0).clamp(min=0)
            weight = weight * (norm.weight.double() * torch.rsqrt(variance + norm.eps))
            folded.weight = weight.to(self.weight.dtype)
            # The convolution's own bias goes with the mean.
            folded.bias = (norm.bias.double() - mean @ weight).to(self.weight.dtype)
        folded.norm = None
        return folded

    def __call__(self, x: Tensor) -> Tensor:
        rows = (len(x) - self.kernel) // self.stride + 1
        inputs = x.shape[1]
        dtype = self.dtype(x)
        x, weight = x.to(dtype), self.weight.to(dtype)
        bias = None if self.bias is None else self.bias.to(dtype)
        if inputs == 1:
            y = _product(x[:, 0].unfold(0, self.kernel, self.stride), weight, bias)
        else:
            whole = min(self.stride, self.kernel)
            y = _product(_patches(x, 0, whole, self.stride, rows), weight[: whole * inputs], bias)
            for tap in range(whole, self.kernel, self.stride):
                taps = min(self.stride, self.kernel - tap)
                part = weight[tap * inputs : (tap + taps) * inputs]
                y.addmm_(_patches(x, tap, taps, self.stride, rows), part)
        if self.norm is not None:
            y = self.norm(y).to(dtype)
        return torch.ops.aten.gelu_(y)  # type: ignore[no-any-return]


def _product(patches: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return patches @ weight if bias is None else torch.addmm(bias, patches, weight)


def _patches(x: Tensor, tap: int, taps: int, stride: int, rows: int) -> Tensor:
    """Taps `tap` to `tap + taps` of every position of x (time, channels): a view (rows, taps * channels)."""
    channels = x.shape[1]
    return x.as_strided((rows, taps * channels), (stride * channels, 1), x.storage_offset() + tap * channels)
