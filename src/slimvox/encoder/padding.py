"""From samples to frames: which frames of a padded batch are speech."""

from __future__ import annotations

import torch
from torch import Tensor

from slimvox.structures.anatomy import EncoderAnatomy


def frame_counts(samples: Tensor, anatomy: EncoderAnatomy) -> Tensor:
    """Frames of clips of so many samples, of any shape; 0 where a clip is too short for one."""
    for convolution in anatomy.convolutions:
        samples = torch.div(samples - convolution.kernel, convolution.stride, rounding_mode="floor") + 1
    return samples.clamp(min=0)


def frame_mask(mask: Tensor, anatomy: EncoderAnatomy, frames: int) -> Tensor:
    """Which of so many frames are speech, (batch, frames) bool, from a mask of the samples (batch, samples)."""
    counts = frame_counts(mask.to(torch.long).sum(-1, keepdim=True), anatomy)
    return torch.arange(frames, device=mask.device) < counts


def padding_bias(frame_mask: Tensor) -> Tensor:
    """0 for frames that may be attended to and -inf for padding, (batch, 1, 1, frames).

    A row with no frame at all attends everywhere: its output is of no meaning, but it is no NaN either.
    """
    attended = frame_mask | ~frame_mask.any(-1, keepdim=True)
    return torch.where(attended, 0.0, float("-inf"))[:, None, None, :]
