"""A loss that is not part of slimvox: difference of the frames' log energies. See docs/extending/loss.md."""

from __future__ import annotations

import torch
from torch import Tensor

from slimvox.losses import ComparedStates, Loss


class LogEnergy(Loss):
    """Mean absolute difference of the log norms of frames, over all comparisons."""

    name = "log_energy"
    title = "Difference of log energies"

    def __call__(self, states: ComparedStates) -> Tensor:
        """The loss, a scalar."""
        terms = []
        for mapped, wanted, valid in zip(states.mapped, states.wanted, states.valid, strict=True):
            gap = mapped.norm(dim=-1).clamp(min=1e-6).log() - wanted.norm(dim=-1).clamp(min=1e-6).log()
            terms.append((gap.abs() * valid.squeeze(-1)).sum() / valid.sum().clamp(min=1))
        return torch.stack(terms).mean()
