"""The distillation loss: state against state, and frame against frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimvox.distillation.layers import layer_groups
from slimvox.distillation.relation import temporal_relation_loss
from slimvox.encoder import EncoderOutput


@dataclass(frozen=True, kw_only=True)
class DistillationLoss:
    """The loss and its parts, scalars."""

    total: Tensor
    l1: Tensor
    """Mean absolute difference."""
    cosine: Tensor
    """1 - cosine similarity, mean over frames."""
    relation: Tensor | None
    """Squared difference of temporal relations; None where it has no weight."""


class Distillation(nn.Module):
    """L1 + (1 - cosine) between student states and teacher states, mean over the chosen layers.

    With `maps`, student states are first mapped by linear maps that start as the identity: state 0, what enters the
    Transformer, has a map of its own; the others share one.
    """

    def __init__(
        self,
        width: int,
        layers: Sequence[int],
        *,
        l1_weight: float = 1.0,
        cosine_weight: float = 1.0,
        relation_weight: float = 0.0,
        maps: bool = True,
        group_means: bool = False,
    ) -> None:
        """A loss with maps that are the identity.

        Args:
            width: of the states.
            layers: which hidden states to compare, ascending.
            l1_weight: weight of the mean absolute difference.
            cosine_weight: weight of 1 - cosine similarity.
            relation_weight: weight of `temporal_relation_loss`.
            maps: whether the student's states go through linear maps.
            group_means: whether means over groups of neighbouring states are compared, instead of single ones.
        """
        super().__init__()
        self.layers = tuple(layers)
        self.groups = layer_groups(self.layers) if group_means else tuple((layer,) for layer in self.layers)
        self.l1_weight, self.cosine_weight = l1_weight, cosine_weight
        self.relation_weight = relation_weight
        self.first_map = _identity(width) if maps and 0 in self.layers else None
        self.shared_map = _identity(width) if maps and any(self.layers) else None

    def forward(
        self, student: EncoderOutput, teacher: EncoderOutput, hidden: Tensor | None = None
    ) -> DistillationLoss:
        """Compare two outputs for the same batch; frames of padding do not count.

        Args:
            student: the student's output.
            teacher: the teacher's.
            hidden: (batch, frames) bool, frames that the student was not shown. They do not count in state 0, which
                has no context to guess them from, and in the relations.
        """
        speech = student.frame_mask.float()
        shown = speech if hidden is None else speech * (~hidden).float()
        l1, cosine = [], []
        for group in self.groups:
            valid = (speech if group[-1] else shown).unsqueeze(-1)
            frames = valid.sum().clamp(min=1)
            states_map = self.shared_map if group[-1] else self.first_map
            mapped = _mean(student.hidden_states, group)
            if states_map is not None:
                mapped = states_map(mapped)
            mapped, wanted = mapped.float(), _mean(teacher.hidden_states, group).float()
            l1.append(((mapped - wanted).abs() * valid).sum() / (frames * mapped.shape[-1]))
            similarity = F.cosine_similarity(mapped, wanted, dim=-1).unsqueeze(-1)
            cosine.append(((1 - similarity) * valid).sum() / frames)
        mean_l1, mean_cosine = torch.stack(l1).mean(), torch.stack(cosine).mean()
        total = self.l1_weight * mean_l1 + self.cosine_weight * mean_cosine
        relation = None
        if self.relation_weight:
            relation = temporal_relation_loss(
                student.hidden_states, teacher.hidden_states, self.layers, shown
            )
            total = total + self.relation_weight * relation
        return DistillationLoss(total=total, l1=mean_l1, cosine=mean_cosine, relation=relation)


def _mean(states: Sequence[Tensor], group: Sequence[int]) -> Tensor:
    if len(group) == 1:
        return states[group[0]]
    return torch.stack([states[index] for index in group]).mean(0)


def _identity(width: int) -> nn.Linear:
    linear = nn.Linear(width, width)
    nn.init.eye_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
