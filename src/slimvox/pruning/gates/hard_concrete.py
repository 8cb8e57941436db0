"""The hard concrete distribution, with an optional straight-through estimator.

Louizos, Welling and Kingma, "Learning Sparse Neural Networks through L0 Regularization" (ICLR 2018), equations 10-13;
the straight-through estimator is that of "Task-Agnostic Structured Pruning of Speech Representation Models"
(Interspeech 2023). Everything is computed in float32, independently of the precision of the network, because the
logarithms of probabilities near 0 and 1 need it.

    u ~ U(0, 1)    s = sigmoid((log u - log(1 - u) + log_alpha) / BETA)
    s_bar = s (RIGHT - LEFT) + LEFT    z = min(1, max(0, s_bar))
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

BETA = 2 / 3
"""Temperature."""
LEFT, RIGHT = -0.1, 1.1
"""The interval that the concrete variable is stretched to; values outside [0, 1] are clipped to exactly 0 or 1."""
EPSILON = 1e-6
"""Minimum distance of uniform noise from 0 and 1."""
SHIFT = BETA * math.log(-LEFT / RIGHT)
"""P(z > 0) = sigmoid(log_alpha - SHIFT)."""


def stretched(log_alpha: Tensor, u: Tensor) -> Tensor:
    """Stretched sample s_bar before it is clipped; `u` uniform in (0, 1), same shape as `log_alpha`."""
    u = u.clamp(EPSILON, 1 - EPSILON)
    return _stretch(torch.sigmoid((torch.log(u) - torch.log1p(-u) + log_alpha) / BETA))


def sample(log_alpha: Tensor, u: Tensor, *, straight_through: bool) -> Tensor:
    """Sample z of the gates, between 0 and 1, including exact zeros and ones.

    Args:
        log_alpha: locations, any shape, float32.
        u: uniform noise of the same shape.
        straight_through: give the clipped samples the gradient of the unclipped ones (dz/ds_bar = 1) instead of
            none. At log_alpha = 4.6, where gates usually start, 95 % of the samples are clipped.
    """
    s_bar = stretched(log_alpha, u)
    clipped = s_bar.clamp(0.0, 1.0)
    if not straight_through:
        return clipped
    return s_bar + (clipped - s_bar).detach() if s_bar.requires_grad else clipped


def open_probability(log_alpha: Tensor) -> Tensor:
    """P(z > 0), differentiable."""
    return torch.sigmoid(log_alpha - SHIFT)


def typical_open_value(log_alpha: Tensor) -> Tensor:
    """The median of z given that the gate is open: from 0.145 for gates that are surely closed to 1 for open ones.

    It is the value of a gate after pruning. Equation 13 of the paper uses the value at u = 1/2 instead, which is 0 for
    some gates that a budget may still keep. With p = P(z > 0), the median is at u = 1 - p / 2. Its logit is computed as
    log(2 - p) - log p, in which nothing cancels for small p.
    """
    log_p = F.logsigmoid(log_alpha - SHIFT)
    logit = torch.log(2 - log_p.exp()) - log_p
    return _stretch(torch.sigmoid((logit + log_alpha) / BETA)).clamp(0.0, 1.0)


def location(drop: float) -> float:
    """The log_alpha at which the concrete variable drops with probability `drop`: log((1 - drop) / drop)."""
    if not 0 < drop < 1:
        raise ValueError(f"`drop` must be between 0 and 1, but is {drop} instead")
    return math.log1p(-drop) - math.log(drop)


def _stretch(s: Tensor) -> Tensor:
    return s * (RIGHT - LEFT) + LEFT
