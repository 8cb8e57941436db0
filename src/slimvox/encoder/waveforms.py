"""Waveforms before the front end: checks, normalisation, and the mask of frames that are not padding."""

from __future__ import annotations

import torch
from torch import Tensor

from slimvox.structures.anatomy import SAMPLE_RATE_HZ, EncoderAnatomy

_CURES = {
    torch.bool: "samples are numbers, convert them with `.float()`",
    torch.uint8: "divide unsigned samples of 8 bits by 128 and subtract 1",
    torch.int8: "divide samples of 8 bits by 128",
    torch.int16: "divide samples of 16 bits by 32768",
    torch.int32: "divide samples of 32 bits by 2147483648",
}
"""Advice for samples of unsupported types."""


def check_waveforms(waveforms: Tensor, mask: Tensor | None, *, least: int, most: int | None = None) -> None:
    """Check the arguments of an encoder.

    Integers are not converted: nothing says whether they are samples at full scale or have been scaled before.

    Args:
        waveforms: (batch, samples).
        mask: of the same shape, or None.
        least: minimum number of samples, enough for one frame.
        most: maximum number of samples; None if there is no limit.

    Raises:
        ValueError: if `waveforms` is not floating point or not (batch, samples), or holds no clip or less than one
            frame or more than `most` samples, or if `mask` is no tensor or has another shape.
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
    if most is not None and waveforms.shape[1] > most:
        raise ValueError(
            f"`waveforms` must hold at most {most} samples ({most / SAMPLE_RATE_HZ:g} s, for which the model has"
            f" positions), but holds {waveforms.shape[1]} instead; cut it, or encode it in chunks with `slimvox.encode`"
        )
    if mask is not None and not isinstance(mask, Tensor):
        raise ValueError(
            f"`attention_mask` must be a torch.Tensor, but is of type {type(mask).__name__} instead; convert it with"
            " `torch.as_tensor`"
        )
    if mask is not None and mask.shape != waveforms.shape:
        raise ValueError(
            f"`attention_mask` must have the shape of the waveforms, {tuple(waveforms.shape)},"
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


def frame_counts(samples: Tensor, anatomy: EncoderAnatomy) -> Tensor:
    """Number of frames for each number of samples, of any shape; 0 if a clip is too short for one frame."""
    return anatomy.output_lengths(samples)[-1].clamp(min=0)


def frame_mask(mask: Tensor, anatomy: EncoderAnatomy, frames: int) -> Tensor:
    """Mask of the frames that are not padding, (batch, frames) bool, from a mask of the samples (batch, samples)."""
    counts = frame_counts(mask.to(torch.long).sum(-1, keepdim=True), anatomy)
    return torch.arange(frames, device=mask.device) < counts


def padding_bias(frame_mask: Tensor) -> Tensor:
    """0 for frames that may be attended to and -inf for padding, (batch, 1, 1, frames).

    A row without any frame attends everywhere: its output has no meaning, but is not NaN either.
    """
    attended = frame_mask | ~frame_mask.any(-1, keepdim=True)
    return torch.where(attended, 0.0, float("-inf"))[:, None, None, :]
