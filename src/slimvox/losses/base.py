"""The interface of a distillation loss, and the registry of all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from slimvox.util.registry import Registry


@dataclass(frozen=True, kw_only=True)
class ComparedStates:
    """Hidden states of student and teacher for one batch.

    B = batch, T = frames, D = width.
    """

    mapped: Sequence[Tensor]
    """States of the student, or means over groups of them, after the linear maps if any; float32 (B, T, D)."""
    targets: Sequence[Tensor]
    """Corresponding states of the teacher, float32 (B, T, D)."""
    valid: Sequence[Tensor]
    """Weight of each frame in each comparison, 1 or 0, float32 (B, T, 1)."""
    frames: Sequence[Tensor | float]
    """Number of frames to divide the sum over each comparison by, scalars: `valid.sum()`, and where the batch is a part
    of a step (a micro-batch, the clips of one process), the number that as many clips have on average over the step.
    The mean of the parts' losses, weighted by their clips, is then the loss of the whole step."""
    student: Sequence[Tensor]
    """All hidden states of the student, layers + 1 of (B, T, D), in the precision in which they were computed."""
    teacher: Sequence[Tensor]
    """All hidden states of the teacher, layers + 1 of (B, T, width of the teacher), in the precision in which they were
    computed."""
    layers: Sequence[int]
    """Indices of the hidden states to compare, ascending."""
    shown: Tensor
    """Mask of the speech frames that the student was shown, 1 or 0, float32 (B, T)."""
    pairs: Tensor | float
    """Number of pairs of shown frames of the same clip to divide by, a scalar; see `frames`."""


class Loss(ABC):
    """One term of the distillation loss. Its weight is `distillation.weights.NAME` in the recipe.

    Losses are called with autocast disabled, in every precision of a run.
    """

    name: str
    """Identifier in recipes and logs."""
    title: str
    """Title in plots."""
    weight: float = 0.0
    """Weight where a recipe does not give one."""

    @abstractmethod
    def __call__(self, states: ComparedStates) -> Tensor:
        """The unweighted loss, a scalar, differentiable in the student's states."""


_LOSSES: Registry[Loss] = Registry("loss")
register_loss = _LOSSES.register
unregister_loss = _LOSSES.unregister
loss = _LOSSES.get
losses = _LOSSES.all
loss_names = _LOSSES.names
