"""A grouped convolution with many taps, through the Fourier transform: for inference on a CPU.

The positional convolution has 128 taps and few channels to a group. In blocks of twice as many frames (overlap-save,
Oppenheim and Schafer, "Discrete-Time Signal Processing", section 8.7.3) it becomes a small matrix product for each
frequency, a twentieth of the multiplications and about a sixth of the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEWEST_TAPS = 32
"""Below this the plain convolution is as fast."""
BLOCKS_AT_ONCE = 16
"""Bounds the memory: clips are taken in groups of no more blocks than this (or one by one)."""


@dataclass(frozen=True, kw_only=True)
class _Spectrum:
    """Transformed weights, and how to know that they still are those of the convolution."""

    mark: tuple[int, int, float]
    weight: Tensor
    """(groups, frequencies, channels in, channels out), complex."""


_SPECTRA: WeakKeyDictionary[nn.Conv1d, _Spectrum] = WeakKeyDictionary()
"""Kept while their convolutions live, apart from them: not part of a model's state, its copies or its files."""


def suits_spectral(convolution: nn.Conv1d) -> bool:
    """Whether `spectral_convolution` can take the place of a convolution."""
    weight = convolution.weight
    return (
        convolution.kernel_size[0] >= FEWEST_TAPS
        and convolution.stride[0] == convolution.dilation[0] == 1
        and convolution.padding == (convolution.kernel_size[0] // 2,)
        and weight.dtype == torch.float32
        and not weight.is_inference()
    )


def spectral_convolution(convolution: nn.Conv1d, x: Tensor) -> Tensor:
    """What the convolution, padded by half its taps, makes of the frames x.

    Args:
        convolution: see `suits_spectral`.
        x: (batch, frames, channels), float32.

    Returns:
        (batch, frames, channels): as many frames as came in, the surplus one of an even number of taps left out.
    """
    taps = convolution.kernel_size[0]
    size = _block_size(taps)
    spectrum = _spectrum(convolution, size)
    blocks = -(-x.shape[1] // (size - taps + 1))
    clips = max(1, BLOCKS_AT_ONCE // blocks)
    parts = [_convolved(part, spectrum, taps, size) for part in torch.split(x, clips)]
    y = torch.cat(parts) if len(parts) > 1 else parts[0]
    return y if convolution.bias is None else y + convolution.bias


def _convolved(x: Tensor, spectrum: Tensor, taps: int, size: int) -> Tensor:
    batch, frames, channels = x.shape
    groups, frequencies, inputs, _ = spectrum.shape
    step = size - taps + 1
    blocks = -(-frames // step)
    before = taps // 2
    padded = F.pad(x, (0, 0, before, blocks * step + taps - 1 - before - frames))
    transformed = torch.fft.rfft(padded.unfold(1, size, step))
    by_frequency = transformed.view(batch * blocks, groups, inputs, frequencies).permute(1, 3, 0, 2)
    product = by_frequency @ spectrum
    back: Tensor = torch.fft.irfft(product.permute(2, 0, 3, 1), n=size)[..., taps - 1 :]
    y = back.reshape(batch, blocks, channels, step).transpose(2, 3).reshape(batch, -1, channels)
    return y[:, :frames]


def _block_size(taps: int) -> int:
    """Twice the next power of two: about half of each block is new."""
    return 2 << (taps - 1).bit_length()


def _spectrum(convolution: nn.Conv1d, size: int) -> Tensor:
    weight = convolution.weight.detach()
    # Writing through `.data` leaves the version as it is; the sum tells.
    mark = (weight.data_ptr(), convolution.weight._version, float(weight.sum()))
    kept = _SPECTRA.get(convolution)
    if kept is None or kept.mark != mark:
        groups = convolution.groups
        by_group = weight.flip(-1).view(groups, -1, *weight.shape[1:])
        transformed = torch.fft.rfft(by_group, n=size).permute(0, 3, 2, 1).contiguous()
        kept = _Spectrum(mark=mark, weight=transformed)
        _SPECTRA[convolution] = kept
    return kept.weight
