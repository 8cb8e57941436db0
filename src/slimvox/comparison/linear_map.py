"""Error that remains after the best linear map from a student's hidden states to its teacher's."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

RIDGE = 1e-4
"""Weight of the ridge penalty, in units of the mean variance of the student's dimensions."""
FRAMES_PER_DIMENSION = 2
"""Minimum number of frames in each half, per dimension of the student's states; with fewer the map fits noise."""


@dataclass
class _Moments:
    """Sums over the frames of one half of the clips, in float64."""

    frames: int = 0
    x: Tensor | None = None
    """(width,) sum of the student's states."""
    y: Tensor | None = None
    xx: Tensor | None = None
    """(width, width) sum of products."""
    xy: Tensor | None = None
    yy: float = 0.0

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add frames (frames, width) of the student and of the teacher."""
        parts = (x.sum(0), y.sum(0), x.T @ x, x.T @ y)
        known = (self.x, self.y, self.xx, self.xy)
        self.x, self.y, self.xx, self.xy = (
            part if old is None else old + part for old, part in zip(known, parts, strict=True)
        )
        self.yy += float(y.square().sum())
        self.frames += len(x)


@dataclass
class HeldOutMap:
    """Ridge regression from one encoder's states to another's, fitted on half of the clips and measured on the other.

    Both halves take their turn, so every clip is measured, always by a map that was fitted without it. Clips of one
    speaker may be in both halves.
    """

    halves: tuple[_Moments, _Moments] = field(default_factory=lambda: (_Moments(), _Moments()))

    def add(self, clip: int, student: Tensor, teacher: Tensor) -> None:
        """Add a clip's states (frames, width) in float64; even and odd clips are the two halves."""
        self.halves[clip % 2].add(student, teacher)

    def squared_error(self) -> float | None:
        """Sum of squared errors over all clips; None if there are too few frames to fit a map."""
        for half in self.halves:
            if half.x is None or half.frames < FRAMES_PER_DIMENSION * len(half.x):
                return None
        first, second = self.halves
        return _error(_fit(first), second) + _error(_fit(second), first)


def _fit(of: _Moments) -> tuple[Tensor, Tensor]:
    """Weights (width, width) and bias (width,)."""
    assert of.x is not None and of.y is not None and of.xx is not None and of.xy is not None
    x, y = of.x / of.frames, of.y / of.frames
    covariance = of.xx / of.frames - torch.outer(x, x)
    penalty = RIDGE * covariance.diagonal().mean().clamp_min(torch.finfo(x.dtype).tiny)
    covariance.diagonal().add_(penalty)
    weights = torch.linalg.solve(covariance, of.xy / of.frames - torch.outer(x, y))
    return weights, y - x @ weights


def _error(fitted: tuple[Tensor, Tensor], on: _Moments) -> float:
    """Squared error of a map, from the sums of other clips."""
    assert on.x is not None and on.y is not None and on.xx is not None and on.xy is not None
    weights, bias = fitted
    linear = (weights * (on.xx @ weights)).sum() - 2 * (weights * on.xy).sum() + on.yy
    return max(0.0, float(linear + 2 * bias @ (on.x @ weights - on.y) + on.frames * bias @ bias))
