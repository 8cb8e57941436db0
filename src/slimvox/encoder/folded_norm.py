"""A group norm over time as a scale of the weights of the convolution before it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
    # Rounding may leave a variance of nothing a little below it.
    variance = F.relu((weight * (covariance @ weight)).sum(-2, keepdim=True))
    assert norm.weight is not None
    return weight * (norm.weight.to(weight.dtype) * torch.rsqrt(variance + norm.eps))
