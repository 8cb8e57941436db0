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
SMALLEST_BLOCK = 64
"""Number of frames in the blocks of the shortest clips."""
ROWS_AT_ONCE = 64
"""Number of output channels whose weights are converted at a time; they stay in the cache of the processor."""


class SpectrumCache:
    """The transformed weights of one convolution, kept from call to call.

    They are not part of the state of a model, its copies or its files: a copy of a cache is empty.
    """

    def __init__(self) -> None:
        self._mark: Tensor | None = None
        self._kept: dict[int, Tensor] = {}

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
        mark = _mark(convolution.weight.detach())
        if self._mark is None or not _same_bits(self._mark, mark):
            self._mark, self._kept = mark, {}
        if size not in self._kept:
            self._kept[size] = _transformed(convolution, size)
        return self._kept[size]


def _transformed(convolution: nn.Conv1d, size: int) -> Tensor:
    weight = dense_weight(convolution).detach()
    weight = weight.to(_precision(weight))
    middle = weight.shape[-1] // 2
    # A block without room for all taps is for clips that the outer ones do not reach.
    reach = min(middle, size // 2 - 1)
    near = weight[..., middle - reach : middle + reach + 1].flip(-1)
    # The tap of a frame itself is the first of its block, so that frames do not move.
    ahead = near.shape[-1] - 1 - reach
    kernel = F.pad(near, (0, size - near.shape[-1])).roll(-ahead, -1)
    by_group = kernel.view(convolution.groups, -1, *kernel.shape[1:])
    transformed: Tensor = torch.fft.rfft(by_group)
    return transformed.permute(0, 3, 2, 1).contiguous()


def spectral_obstacle(convolution: nn.Module, x: Tensor) -> str | None:
    """The reason why `spectral_convolution` cannot replace a convolution of the frames x, or None."""
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
    frames, taps = x.shape[1], all_taps(convolution)
    size = _block_size(frames, taps)
    before, step = taps // 2, size - taps + 1
    if frames + before <= size or size < 2 * taps:
        # One block that begins with the first frame: its end, which is zero, serves as the padding before it.
        before, step = 0, frames
    spectrum = cache.spectrum(convolution, size)
    x = x.to(_precision(convolution.weight))
    clips = max(1, BLOCKS_AT_ONCE // -(-frames // step))
    parts = [_convolved(part, spectrum, size, before, step) for part in torch.split(x, clips)]
    y = torch.cat(parts) if len(parts) > 1 else parts[0]
    return y if convolution.bias is None else y + convolution.bias


def _convolved(x: Tensor, spectrum: Tensor, size: int, before: int, step: int) -> Tensor:
    """Convolution of x in blocks of `size`, each of which gives the `step` frames after the first `before`."""
    batch, frames, channels = x.shape
    groups, frequencies, inputs, _ = spectrum.shape
    blocks = -(-frames // step)
    padded = F.pad(x, (0, 0, before, (blocks - 1) * step + size - before - frames))
    transformed = torch.fft.rfft(padded.unfold(1, size, step))
    by_frequency = transformed.view(batch * blocks, groups, inputs, frequencies).permute(1, 3, 0, 2)
    product = by_frequency @ spectrum
    back: Tensor = torch.fft.irfft(product.permute(2, 0, 3, 1), n=size)[..., before : before + step]
    y = back.reshape(batch, blocks, channels, step).transpose(2, 3).reshape(batch, -1, channels)
    return y[:, :frames]


def _block_size(frames: int, taps: int) -> int:
    """Twice the next power of two of the taps, so that about half of each block is new; less for short clips.

    A clip of at most half a block does not wrap around the end of the block.
    """
    return min(2 * _power_of_two(taps), max(SMALLEST_BLOCK, 2 * _power_of_two(frames)))


def _power_of_two(number: int) -> int:
    """The next power of two."""
    return 1 << (number - 1).bit_length()


def _precision(weight: Tensor) -> torch.dtype:
    """Precision of the transform, which does not exist for half-precision types."""
    return torch.promote_types(weight.dtype, torch.float32)


def _mark(weight: Tensor) -> Tensor:
    """A number per output channel that changes with every weight."""
    dtype = _precision(weight)
    rows = weight.reshape(len(weight), -1)
    probe = _probe(rows.shape[1], dtype)
    if weight.dtype == dtype:
        return rows @ probe
    return torch.cat([some.to(dtype) @ probe for some in torch.split(rows, ROWS_AT_ONCE)])


@cache
def _probe(length: int, dtype: torch.dtype) -> Tensor:
    """Fixed pseudo-random numbers between 1 and 2, (length,)."""
    steps = torch.arange(1, length + 1, dtype=torch.float64, device="cpu")
    return (1 + (steps * 0.6180339887498949) % 1).to(dtype)


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a.view(torch.uint8), b.view(torch.uint8))
