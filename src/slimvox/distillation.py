"""Distillation: the student's hidden states follow the teacher's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimvox.encoder import EncoderOutput


def distilled_layers(layers: int, count: int = 4) -> tuple[int, ...]:
    """Indices of the hidden states to compare: evenly spaced, the first and the last included.

    {0, 4, 8, 12} of 12 layers, {0, 8, 16, 24} of 24.
    """
    count = min(count, layers + 1)
    if count == 1:
        return (layers,)
    return tuple(dict.fromkeys(round(index * layers / (count - 1)) for index in range(count)))


@dataclass(frozen=True, kw_only=True)
class DistillationLoss:
    """The loss and its two parts, scalars."""

    total: Tensor
    l1: Tensor
    """Mean absolute difference."""
    cosine: Tensor
    """1 - cosine similarity, mean over frames."""


class Distillation(nn.Module):
    """L1 + (1 - cosine) between mapped student states and teacher states, mean over the chosen layers.

    The maps are linear and start as the identity. State 0, what enters the Transformer, has a map of its own; the
    others share one.
    """

    def __init__(
        self, width: int, layers: Sequence[int], *, l1_weight: float = 1.0, cosine_weight: float = 1.0
    ) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self.l1_weight, self.cosine_weight = l1_weight, cosine_weight
        self.first_map = _identity(width) if 0 in self.layers else None
        self.shared_map = _identity(width) if any(self.layers) else None

    def forward(self, student: EncoderOutput, teacher: EncoderOutput) -> DistillationLoss:
        """Compare two outputs for the same batch; frames of padding do not count."""
        valid = student.frame_mask.unsqueeze(-1).float()
        frames = valid.sum()
        l1, cosine = [], []
        for layer in self.layers:
            states_map = self.shared_map if layer else self.first_map
            assert states_map is not None
            mapped = states_map(student.hidden_states[layer]).float()
            wanted = teacher.hidden_states[layer].float()
            l1.append(((mapped - wanted).abs() * valid).sum() / (frames * mapped.shape[-1]))
            similarity = F.cosine_similarity(mapped, wanted, dim=-1).unsqueeze(-1)
            cosine.append(((1 - similarity) * valid).sum() / frames)
        mean_l1, mean_cosine = torch.stack(l1).mean(), torch.stack(cosine).mean()
        total = self.l1_weight * mean_l1 + self.cosine_weight * mean_cosine
        return DistillationLoss(total=total, l1=mean_l1, cosine=mean_cosine)


def _identity(width: int) -> nn.Linear:
    linear = nn.Linear(width, width)
    nn.init.eye_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
