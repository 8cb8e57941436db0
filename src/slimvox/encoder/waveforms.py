"""Waveforms before the front end: which are taken, and how they are normalized."""

from __future__ import annotations

import torch
from torch import Tensor

_CURES = {
    torch.bool: "samples are numbers, convert them with `.float()`",
    torch.uint8: "divide unsigned samples of 8 bits by 128 and subtract 1",
    torch.int8: "divide samples of 8 bits by 128",
    torch.int16: "divide samples of 16 bits by 32768",
    torch.int32: "divide samples of 32 bits by 2147483648",
}
"""What to do about samples of a type that is not taken."""


def check_waveforms(waveforms: Tensor, mask: Tensor | None, *, least: int) -> None:
    """Check the arguments of an encoder.

    Integers are not converted: nothing says whether they are samples at full scale or have been scaled before.

    Args:
        waveforms: (batch, samples).
        mask: of the same shape, or None.
        least: the number of samples in one frame.

    Raises:
        ValueError: if `waveforms` is not floating point or not (batch, samples), or holds no clip or less than one
            frame, or if `mask` has another shape.
    """
    if not isinstance(waveforms, Tensor):
        kind = type(waveforms).__name__
        raise ValueError(
            f"`waveforms` must be a torch.Tensor, but is of type {kind} instead; convert it with `torch.as_tensor`"
        )
    if not waveforms.is_floating_point():
        cure = "take the real part" if waveforms.is_complex() else _CURES.get(waveforms.dtype)
        raise ValueError(
            f"`waveforms` must be floating point with full scale at 1, but is {waveforms.dtype} instead;"
            f" {cure or 'divide integer samples by their full scale (32768 for 16 bits)'}"
        )
    if waveforms.dim() != 2:
        raise ValueError(f"`waveforms` must be (batch, samples), but is {tuple(waveforms.shape)} instead")
    if not waveforms.shape[0]:
        raise ValueError("`waveforms` must hold at least one clip, but is (0, samples) instead")
    if waveforms.shape[1] < least:
        raise ValueError(
            f"`waveforms` must hold at least {least} samples (one frame), but holds {waveforms.shape[1]} instead"
        )
    if mask is not None and mask.shape != waveforms.shape:
        raise ValueError(
            f"`mask` must have the shape of the waveforms, {tuple(waveforms.shape)},"
            f" but is {tuple(mask.shape)} instead"
        )


def normalize_waveforms(waveforms: Tensor, mask: Tensor | None = None) -> Tensor:
    """Zero mean, unit variance per clip, (batch, samples); padding does not count and stays 0.

    The same as the `do_normalize` of `transformers`' `Wav2Vec2FeatureExtractor`; doing it twice changes nothing. The
    result is float64 for waveforms in float64 and float32 for all others.
    """
    if waveforms.dtype != torch.float64:
        waveforms = waveforms.float()
    weights = torch.ones_like(waveforms) if mask is None else mask.to(waveforms.dtype)
    count = weights.sum(-1, keepdim=True).clamp(min=1)
    centred = waveforms - (waveforms * weights).sum(-1, keepdim=True) / count
    variance = (centred.square() * weights).sum(-1, keepdim=True) / count
    return centred * weights * torch.rsqrt(variance + 1e-7)
