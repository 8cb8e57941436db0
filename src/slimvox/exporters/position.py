"""The positional convolution in forms for exporters: in the frequency domain, and as a plain convolution."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimvox.encoder.front_end import PositionalConvolution, PositionalStack
from slimvox.encoder.log_mel import PositionTable
from slimvox.encoder.sparse_taps import SparseTaps, all_taps, dense_weight
from slimvox.exporters.crop import pad

PositionForm = Literal["spectrum of taps", "spectrum", "convolution"]
"""Form of an exported positional convolution: in the frequency domain, with the taps in the file (half the size of
their transform; for runtimes that fold constants) or with their transform; or as a plain convolution."""


class SpectralPositions(nn.Module):
    """The grouped positional convolution by overlap-save, with a fifth of the operations of 128 taps.

    Blocks of as many frames as there are taps are transformed two at a time, multiplied group by group and frequency by
    frequency, and transformed back. The half of each result that is free of wrap-around is kept. The transform is a
    real Fourier transform, computed as a matrix product with a constant, so that no runtime needs an FFT.
    """

    def __init__(self, positions: PositionalConvolution, *, taps_in_file: bool) -> None:
        """`taps_in_file`: store the taps and not their transform."""
        super().__init__()
        convolution = positions.conv
        self.layer_norm = positions.layer_norm
        self.taps = all_taps(convolution)
        self.groups = convolution.groups
        self.width = convolution.out_channels
        forward, backward, weight_transform = _transforms(self.taps)
        kept = convolution.kernel_size[0]
        if isinstance(convolution, SparseTaps):
            weight_transform = weight_transform[:, convolution.positions.cpu()].contiguous()
        self.register_buffer("transform", forward)
        self.register_buffer("inverse", backward)
        self.register_buffer("weight_transform", weight_transform if taps_in_file else None)
        per_group = self.width // self.groups
        # (kept taps, groups * in per group * out per group)
        weight = convolution.weight.detach().view(self.groups, per_group, per_group, kept)
        weight = weight.permute(3, 0, 2, 1).reshape(kept, -1).contiguous()
        self.weight = nn.Parameter(weight if taps_in_file else weight_transform.to(weight) @ weight)
        bias = convolution.bias
        assert bias is not None
        self.bias = nn.Parameter(bias.detach())

    transform: Tensor
    inverse: Tensor
    weight_transform: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        """(batch, frames, width) to the same shape, to be added to the input."""
        batch, frames, width = x.shape
        taps, groups, per_group = self.taps, self.groups, self.width // self.groups
        blocks = (frames + taps - 1) // taps
        before = taps // 2
        padded = F.pad(x, (0, 0, before, (blocks + 1) * taps - frames - before))
        padded = padded.reshape(batch, blocks + 1, taps, width)
        windows = torch.cat([padded[:, :-1], padded[:, 1:]], 2)
        frequencies = taps + 1
        spectrum = (self.transform @ windows).reshape(batch * blocks, 2, frequencies, groups, per_group)
        # (frequencies, groups, real and imaginary, blocks, per group)
        spectrum = spectrum.permute(2, 3, 1, 0, 4).reshape(frequencies, groups, 2 * batch * blocks, per_group)
        transformed = self.weight if self.weight_transform is None else self.weight_transform @ self.weight
        weight = transformed.view(2, frequencies, groups, per_group, per_group)
        times_real = (spectrum @ weight[0]).reshape(frequencies, groups, 2, batch * blocks, per_group)
        times_imaginary = (spectrum @ weight[1]).reshape(frequencies, groups, 2, batch * blocks, per_group)
        real = times_real[:, :, 0] - times_imaginary[:, :, 1]
        imaginary = times_real[:, :, 1] + times_imaginary[:, :, 0]
        product = torch.stack([real, imaginary]).permute(3, 0, 1, 2, 4)
        product = product.reshape(batch, blocks, 2 * frequencies, width)
        out = (self.inverse @ product).reshape(batch, blocks * taps, width)[:, :frames]
        out = out + self.bias
        return F.gelu(out if self.layer_norm is None else self.layer_norm(out))


class PlainPositions(nn.Module):
    """The grouped positional convolution as a convolution, for ExecuTorch.

    There it is faster for clips of up to 10 s (500 frames of 768 channels, 128 taps, one thread: 41.8 ms instead of
    47.5; 25 frames: 2.7 instead of 35.5), and a traced program has no special case of a single block.
    """

    def __init__(self, positions: PositionalConvolution) -> None:
        super().__init__()
        convolution = positions.conv
        self.layer_norm = positions.layer_norm
        self.taps, self.groups = all_taps(convolution), convolution.groups
        self.weight = nn.Parameter(dense_weight(convolution).detach())
        assert convolution.bias is not None
        self.bias = nn.Parameter(convolution.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(batch, frames, width) to the same shape, to be added to the input."""
        before = self.taps // 2
        padded = F.pad(x, (0, 0, before, self.taps - 1 - before)).transpose(1, 2)
        out = F.conv1d(padded, self.weight, self.bias, groups=self.groups).transpose(1, 2)
        return F.gelu(out if self.layer_norm is None else self.layer_norm(out))


class ExportedPositionTable(nn.Module):
    """`PositionTable`, cut to the number of frames."""

    def __init__(self, table: PositionTable) -> None:
        super().__init__()
        self.weight = nn.Parameter(table.weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        """The positions (frames, width) to be added to x (batch, frames, width)."""
        return pad(self.weight, (0, 0, 0, x.shape[1] - self.weight.shape[0]))


def exported_positions(positions: nn.Module, form: PositionForm) -> nn.Module:
    """The positional part of an encoder."""
    if isinstance(positions, PositionTable):
        return ExportedPositionTable(positions)
    if isinstance(positions, PositionalConvolution):
        if form == "convolution":
            return PlainPositions(positions)
        return SpectralPositions(positions, taps_in_file=form == "spectrum of taps")
    assert isinstance(positions, PositionalStack)
    return nn.Sequential(*(exported_positions(layer, form) for layer in positions.layers))


def _transforms(taps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Real Fourier transforms of 2 * taps points as matrices, real parts first, then imaginary ones.

    Returns:
        of a window, (2 * frequencies, 2 * taps); back to the valid `taps` points of it, (taps, 2 * frequencies); of the
        taps of a correlation (hence the other sign), (2 * frequencies, taps).
    """
    points = 2 * taps
    frequency = torch.arange(taps + 1, dtype=torch.float64)
    time = torch.arange(points, dtype=torch.float64)
    angle = 2 * math.pi / points * ((frequency[:, None] * time) % points)
    forward = torch.cat([torch.cos(angle), -torch.sin(angle)])
    share = torch.full((taps + 1, 1), 2.0, dtype=torch.float64)
    share[0] = share[-1] = 1.0
    backward = torch.cat([share * torch.cos(angle), -share * torch.sin(angle)])[:, :taps].T / points
    of_weight = torch.cat([torch.cos(angle), torch.sin(angle)])[:, :taps]
    return forward.float(), backward.float().contiguous(), of_weight.float().contiguous()
