"""Losses between corresponding frames of hidden states: mean absolute difference and cosine distance."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from slimvox.losses.base import ComparedStates, Loss


class MeanAbsoluteDifference(Loss):
    """Mean over comparisons of the mean absolute difference over valid frames and dimensions."""

    name = "l1"
    title = "Mean absolute difference"
    weight = 1.0

    def __call__(self, states: ComparedStates) -> Tensor:
        """The loss, a scalar."""
        return _mean_over_comparisons(states, lambda mapped, target: (mapped - target).abs().mean(-1))


class CosineDistance(Loss):
    """Mean over comparisons of 1 - cosine similarity over valid frames."""

    name = "cosine"
    title = "1 - cosine similarity"
    weight = 1.0

    def __call__(self, states: ComparedStates) -> Tensor:
        """The loss, a scalar."""
        return _mean_over_comparisons(
            states, lambda mapped, target: 1 - F.cosine_similarity(mapped, target, dim=-1)
        )


def _mean_over_comparisons(states: ComparedStates, per_frame: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The mean over valid frames of a distance (B, T) between states, then over all comparisons."""
    means = [
        (per_frame(mapped, target).unsqueeze(-1) * valid).sum() / frames
        for mapped, target, valid, frames in zip(
            states.mapped, states.targets, states.valid, states.frames, strict=True
        )
    ]
    return torch.stack(means).mean()
