"""A grouped convolution with many taps, computed by Fourier transform, for inference on a CPU.

The positional convolution has 128 taps and few channels per group. Computed in blocks of twice as many frames, it
becomes a small matrix product for each frequency, with a twentieth of the multiplications and in about a sixth of the
time (overlap-save, Oppenheim and Schafer, "Discrete-Time Signal Processing", section 8.7.3).
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimvox.encoder.backend import dtype_obstacle, module_obstacle
from slimvox.encoder.sparse_taps import SparseTaps, all_taps, dense_weight

FEWEST_TAPS = 32
"""Number of stored taps below which the plain convolution is as fast."""
BLOCKS_AT_ONCE = 16
"""Maximum number of blocks of clips that are computed together, to limit memory."""


class SpectrumCache:
    """The transformed weights of one convolution, kept from call to call.

    They are not part of the state of a model, its copies or its files: a copy of a cache is empty.
    """

    def __init__(self) -> None:
        self._kept: tuple[Tensor, Tensor] | None = None

    def __deepcopy__(self, _: object) -> SpectrumCache:
        return SpectrumCache()

    def __reduce__(self) -> tuple[type[SpectrumCache], tuple[()]]:
        return SpectrumCache, ()

    def spectrum(self, convolution: nn.Conv1d, size: int) -> Tensor:
        """The convolution's weights in blocks of `size`: (groups, frequencies, channels in, channels out), complex.

        They are transformed again when the weights have changed in any way (changes through `.data` or a NumPy array
        that shares the memory do not affect torch's counters). Changes are detected by one sum per output channel of
        the weights, each multiplied by a different number. A change below the rounding of those sums is below that of
        the convolution as well.
        """
        weight = _in_precision(convolution.weight.detach())
        rows = weight.reshape(len(weight), -1)
        mark = rows @ _probe(rows.shape[1], rows.dtype)
        kept = self._kept
        # Bits rather than numbers: NaN is not equal to itself.
        if kept is None or not _same_bits(kept[0], mark) or kept[1].shape[1] != size // 2 + 1:
            weight = _in_precision(dense_weight(convolution).detach())
            by_group = weight.flip(-1).view(convolution.groups, -1, *weight.shape[1:])
            transformed = torch.fft.rfft(by_group, n=size).permute(0, 3, 2, 1).contiguous()
            kept = mark, transformed
            self._kept = kept
        return kept[1]


def spectral_obstacle(convolution: nn.Module, x: Tensor) -> str | None:
    """The reason why `spectral_convolution` cannot take the place of a convolution of the frames x, or None."""
    sparse = type(convolution) is SparseTaps
    obstacle = module_obstacle(convolution, SparseTaps if sparse else nn.Conv1d)
    if obstacle is not None:
        return obstacle
    assert isinstance(convolution, nn.Conv1d)
    taps = all_taps(convolution)
    if convolution.kernel_size[0] < FEWEST_TAPS:
        return f"the convolution has only {convolution.kernel_size[0]} taps"
    padded = sparse or convolution.padding == (taps // 2,)
    if convolution.stride != (1,) or convolution.dilation != (1,) or not padded:
        return "the convolution is strided or dilated, or is not padded by half its taps"
    if convolution.padding_mode != "zeros":
        return "the convolution is not padded with zeros"
    if torch.is_autocast_enabled("cpu"):
        return dtype_obstacle(torch.float32, convolution)
    return dtype_obstacle(x.dtype, convolution)


def spectral_convolution(convolution: nn.Conv1d, x: Tensor, cache: SpectrumCache) -> Tensor:
    """Convolution of the frames x, padded by half its taps, by Fourier transform.

    Args:
        convolution: see `spectral_obstacle`.
        x: (batch, frames, channels).
        cache: the convolution's.

    Returns:
        (batch, frames, channels), in float32 or, for a convolution in float64, in float64: as many frames as came in,
        the surplus one of an even number of taps left out.
    """
    taps = all_taps(convolution)
    size = _block_size(taps)
    spectrum = cache.spectrum(convolution, size)
    x = x.to(_in_precision(convolution.weight).dtype)
    blocks = max(1, -(-x.shape[1] // (size - taps + 1)))
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


def _in_precision(weight: Tensor) -> Tensor:
    """A tensor in the precision of the transform, which does not exist for half-precision types."""
    return weight if weight.dtype == torch.float64 else weight.float()


@cache
def _probe(length: int, dtype: torch.dtype) -> Tensor:
    """Fixed pseudo-random numbers between 1 and 2, (length,)."""
    steps = torch.arange(1, length + 1, dtype=torch.float64, device="cpu")
    return (1 + (steps * 0.6180339887498949) % 1).to(dtype)


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a.view(torch.uint8), b.view(torch.uint8))
