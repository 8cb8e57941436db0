"""Temporal relations: similarities between the frames of a clip."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from slimvox.losses.base import ComparedStates, Loss


class TemporalRelation(Loss):
    """Difference of the temporal relations of student and teacher, see `temporal_relation_loss`."""

    name = "relation"
    title = "Difference of temporal relations"

    def __call__(self, states: ComparedStates) -> Tensor:
        """The loss, a scalar."""
        return temporal_relation_loss(
            states.student, states.teacher, states.layers, states.shown, states.pairs
        )


def temporal_relation_loss(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    layers: Sequence[int],
    valid: Tensor,
    count: Tensor | float | None = None,
) -> Tensor:
    """Squared difference of the Gram matrices over time of two encoders, a scalar.

    Frames are centred per clip and scaled to length one, so that a Gram matrix holds correlations between frames. It is
    compared for each layer's output with itself, and for each layer's input with its output (Jang et al., "STaR:
    Distilling Speech Temporal Relation for Lightweight Speech Self-Supervised Learning Models", ICASSP 2024, which has
    unscaled states). No map is needed in between: Gram matrices do not change when the states are rotated. It should be
    called without autocast, which would round them.

    Args:
        student: hidden states, each (batch, frames, width).
        teacher: the same of the teacher; the width may be another.
        layers: which to compare.
        valid: (batch, frames) float, 1 for frames that count and 0 for padding.
        count: number of pairs of frames to divide by; if not given, all pairs of valid frames of the same clip.
    """
    pairs = valid.unsqueeze(1) * valid.unsqueeze(2)
    count = pairs.sum() if count is None else count
    outputs = [(index, index) for index in layers]
    passages = [(index - 1, index) for index in layers if index]
    needed = {index for pair in (*outputs, *passages) for index in pair}
    directions = {index: _directions(student[index], valid) for index in needed}
    teacher_directions = {index: _directions(teacher[index], valid) for index in needed}

    def difference(first: int, second: int) -> Tensor:
        student_gram = directions[first] @ directions[second].transpose(1, 2)
        teacher_gram = teacher_directions[first] @ teacher_directions[second].transpose(1, 2)
        return ((student_gram - teacher_gram).square() * pairs).sum() / count

    kinds = [[difference(*pair) for pair in kind] for kind in (outputs, passages) if kind]
    return torch.stack([torch.stack(kind).mean() for kind in kinds]).sum()


def _directions(states: Tensor, valid: Tensor) -> Tensor:
    """States (batch, frames, width) centred over each clip's frames, of length one."""
    states, weights = states.float(), valid.unsqueeze(-1)
    mean = (states * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True).clamp(min=1)
    return F.normalize(states - mean, dim=-1)
