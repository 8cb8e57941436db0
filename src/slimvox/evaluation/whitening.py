"""Zero mean, unit variance and no correlation between the dimensions of each layer.

A head's first linear map can express the same, but needs many times as many steps to learn it; with it, CTC fits in
hundreds of steps. The rotation is the one that moves the dimensions least (ZCA), so that layers can still be summed.
It is not part of the official protocol, and only `mini` uses it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

FRAME_FLOOR = 1e-3
"""Share of the mean variance that is added to variances, so that directions without variance are not amplified."""
MEAN_FLOOR = 0.1
"""The same for averages over time, of which there are only as many as recordings."""


@dataclass(frozen=True, kw_only=True)
class Whitening:
    """One affine map per layer."""

    mean: Tensor
    """(layers, width)."""
    maps: Tensor
    """(layers, width, width), symmetric."""

    @staticmethod
    def fit(features: Iterable[Tensor], *, floor: float = FRAME_FLOOR) -> Whitening:
        """Measure mean and covariance over frames; `features` are (frames, layers, width), read once.

        Raises:
            ValueError: if there are no frames.
        """
        count = 0
        total = products = torch.zeros((), device="cpu")
        for part in features:
            by_layer = part.double().transpose(0, 1)
            total = total + by_layer.sum(1)
            products = products + by_layer.transpose(1, 2) @ by_layer
            count += len(part)
        if not count:
            raise ValueError("`features` must hold at least one frame, but holds none")
        mean = total / count
        variances, axes = torch.linalg.eigh(products / count - mean.unsqueeze(2) * mean.unsqueeze(1))
        variances = variances.clamp_min(0)
        spare = floor * variances.mean(-1, keepdim=True) + 1e-12
        scaled = axes * (variances + spare).rsqrt().unsqueeze(1)
        return Whitening(mean=mean.float(), maps=(scaled @ axes.transpose(1, 2)).float())

    def __call__(self, features: Tensor) -> Tensor:
        """Whiten features (..., layers, width)."""
        mean, maps = self.mean.to(features.device), self.maps.to(features.device)
        return torch.einsum("...lw,lwv->...lv", features - mean, maps)
