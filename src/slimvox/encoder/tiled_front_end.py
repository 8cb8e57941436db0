"""The front end for inference on a CPU: the same function, computed for one stretch of time after another.

The first convolutions of a front end make tensors of tens of megabytes; on a CPU a good part of their time goes into
fetching fresh pages for those and passing over them again and again. Here a stretch that fits into the cache goes
through all convolutions before the next one starts. Each convolution is a matrix product of channels-last data.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimvox.encoder.backend import dtype_obstacle, inference_obstacle, module_obstacle, takes
from slimvox.encoder.convolution import ChannelNorm, ConvLayer
from slimvox.encoder.linear import WAY, onednn_obstacle, onednn_product

TILE_BYTES = 8 << 20
"""Approximate size of the largest intermediate result of a tile; smaller than a last-level cache, and large enough for
the products of the last convolutions, which have few rows per tile."""


def tiling_obstacle(layers: nn.ModuleList, waveforms: Tensor) -> str | None:
    """The reason why the output for some waveforms does not follow from the weights of a front end alone, or None."""
    obstacle = inference_obstacle(waveforms)
    if obstacle is not None:
        return obstacle
    dtype = torch.float32 if torch.is_autocast_enabled(waveforms.device.type) else waveforms.dtype
    for layer in layers:
        obstacle = obstacle or _layer_obstacle(layer, dtype)
    return obstacle


def _layer_obstacle(layer: nn.Module, dtype: torch.dtype) -> str | None:
    obstacle = module_obstacle(layer, ConvLayer)
    if obstacle is not None:
        return obstacle
    convolution, norm = layer.get_submodule("conv"), layer.layer_norm
    obstacle = module_obstacle(convolution, nn.Conv1d) or dtype_obstacle(dtype, convolution)
    if obstacle is not None:
        return obstacle
    assert isinstance(convolution, nn.Conv1d)
    if convolution.padding != (0,) or convolution.dilation != (1,) or convolution.groups != 1:
        return "a convolution is padded, dilated or grouped"
    if norm is None:
        return None
    if isinstance(norm, nn.GroupNorm):
        if norm.num_groups != norm.num_channels or norm.weight is None:
            return "a group norm has groups of several channels or no weights"
        return module_obstacle(norm, nn.GroupNorm) or dtype_obstacle(dtype, norm)
    assert isinstance(norm, nn.Module)
    return module_obstacle(norm, ChannelNorm) or dtype_obstacle(dtype, norm)


def tiled_features(layers: nn.ModuleList, waveforms: Tensor) -> Tensor:
    """Output of the convolutions (each a `ConvLayer`) for waveforms (batch, samples): (batch, frames, channels).

    Without gradients, and without masked channels.
    """
    stages = [_Stage(layer) for layer in layers]
    hop, field = 1, 1
    for stage in stages:
        field += (stage.kernel - 1) * hop
        hop *= stage.stride
    batch, samples = waveforms.shape
    frames = max(0, (samples - field) // hop + 1)
    per_frame = hop // stages[0].stride * stages[0].channels * waveforms.element_size()
    tile = min(max(8, TILE_BYTES // per_frame), frames)
    if not frames:
        return waveforms.new_empty(batch, 0, stages[-1].channels, dtype=stages[0].dtype(waveforms))
    sizes, length = [], (tile - 1) * hop + field
    for stage in stages:
        length = stage.frames(length)
        sizes.append(length * stage.channels)
    # Two results at a time: the input and the output of a stage.
    memory = [
        waveforms.new_empty(max(sizes[index::2], default=0), dtype=stages[0].dtype(waveforms))
        for index in (0, 1)
    ]
    output = waveforms.new_empty(batch, frames, stages[-1].channels, dtype=stages[0].dtype(waveforms))
    for clip, waveform in enumerate(waveforms):
        first = stages[0].normalised(waveform) if stages[0].over_time else stages[0]
        for start in range(0, frames, tile):
            stop = min(start + tile, frames)
            x = waveform[start * hop : (stop - 1) * hop + field].unsqueeze(-1)
            for index, stage in enumerate((first, *stages[1:])):
                x = stage(x, memory[index % 2])
            output[clip, start:stop] = x
    return output


def gelu_(x: Tensor) -> Tensor:
    """`F.gelu` in place."""
    y: Tensor = torch.ops.aten.gelu_(x)
    return y


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
        # (channels out, taps and channels in), taps slowest: the order of a patch in memory.
        self.weight = convolution.weight.permute(0, 2, 1).reshape(self.channels, -1)

    def dtype(self, x: Tensor) -> torch.dtype:
        """Type of the output for an x, with or without autocast."""
        if torch.is_autocast_enabled(x.device.type):
            return torch.get_autocast_dtype(x.device.type)
        return self.weight.dtype

    def normalised(self, waveform: Tensor) -> _Stage:
        """The stage for one clip, its group norm over time folded into weights and bias."""
        norm = self.norm
        assert isinstance(norm, nn.GroupNorm)
        folded = object.__new__(_Stage)
        folded.__dict__.update(self.__dict__)
        with torch.autocast(waveform.device.type, enabled=False):
            patches = waveform.double().unfold(0, self.kernel, self.stride)
            mean = patches.mean(0)
            centred = patches - mean
            covariance = centred.T @ centred / len(centred)
            weight = normalised_weight(self.weight.double().T, covariance, norm).T.contiguous()
            folded.weight = weight.to(self.weight.dtype)
            # The convolution's own bias goes with the mean.
            folded.bias = (norm.bias.double() - weight @ mean).to(self.weight.dtype)
        folded.norm = None
        return folded

    def frames(self, length: int) -> int:
        """Length of the output for an input of a length."""
        return (length - self.kernel) // self.stride + 1

    def __call__(self, x: Tensor, memory: Tensor) -> Tensor:
        """Apply convolution, norm and GELU.

        Args:
            x: (time, channels).
            memory: buffer with at least as many elements as the result. The result may be a view of it; x must not be.
        """
        inputs = x.shape[1]
        dtype = self.dtype(x)
        x, weight = x.to(dtype), self.weight.to(dtype)
        bias = None if self.bias is None else self.bias.to(dtype)
        # Each row is a patch. Rows overlap in memory, so a product of whole rows copies them first.
        patches = x.reshape(-1).unfold(0, self.kernel * inputs, self.stride * inputs)
        if takes(WAY, onednn_obstacle(patches, weight, bias)):
            y = onednn_product(patches, weight, bias, gelu=self.norm is None)
            return y if self.norm is None else gelu_(self.norm(y).to(dtype))
        y = memory[: len(patches) * self.channels].view(len(patches), self.channels)
        rows = self.kernel * inputs
        # The columns up to the next patch and the remaining ones do not overlap, so two products need no copy. More
        # than two are slower, and in half precision their sum would be rounded twice.
        cut = (
            self.stride * inputs
            if inputs > 1 and self.kernel <= 2 * self.stride and dtype.itemsize > 2
            else rows
        )
        if bias is None:
            torch.mm(patches[:, :cut], weight[:, :cut].T, out=y)
        else:
            torch.addmm(bias, patches[:, :cut], weight[:, :cut].T, out=y)
        if cut < rows:
            y.addmm_(patches[:, cut:], weight[:, cut:].T)
        return gelu_(y if self.norm is None else self.norm(y).to(dtype))


def normalised_weight(weight: Tensor, covariance: Tensor, norm: nn.GroupNorm) -> Tensor:
    """The weight with which a convolution of centred patches gives what its norm would make of it, less the bias.

    The convolution is linear, so the variance of channel c is `w_c' C w_c` with C the covariance of the patches.

    Args:
        weight: (taps * channels in, channels out).
        covariance: of the patches over time, (..., taps * channels in, taps * channels in).
        norm: of one channel per group.

    Returns:
        (..., taps * channels in, channels out).
    """
    # Rounding may make a variance of zero slightly negative.
    variance = F.relu((weight * (covariance @ weight)).sum(-2, keepdim=True))
    assert norm.weight is not None
    return weight * (norm.weight.to(weight.dtype) * torch.rsqrt(variance + norm.eps))
