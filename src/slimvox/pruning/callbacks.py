"""Callbacks: user-defined functions called after training steps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from slimvox.comparison.distance import Distance
from slimvox.encoder import SpeechEncoder
from slimvox.pruning.gates import final_masks, smallest_cost, surviving_values
from slimvox.pruning.student import Student
from slimvox.pruning.surgery import slice_encoder


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """State of a run after a training step."""

    stage: str
    """`prune` (stage 1) or `finish` (stage 2)."""
    step: int
    """Number of steps done in this stage."""
    steps: int
    """Number of steps of this stage."""
    values: Mapping[str, float]
    """Losses, sparsity and learning rate of the step, as in `run/log.jsonl`; means over processes."""
    student: Student
    """The encoder that is trained, with gates in stage 1. Callbacks must not change it."""
    slice: Callable[[SpeechEncoder, Student], SpeechEncoder]
    """Function that prunes an encoder by the current gates of the student; used by `encoder`."""
    distance_of: Callable[[SpeechEncoder], Distance | None]
    """Function for the distance of an encoder to the teacher on the held-out audio; used by `distance`."""

    def encoder(self) -> SpeechEncoder:
        """A copy of the encoder that the run would produce at this step, in evaluation mode.

        In stage 1, the gates are rounded to the size that the schedule has reached, and closed units are removed.
        """
        with torch.no_grad():
            copied = copy.deepcopy(self.student.encoder)
            return self.slice(copied, self.student).eval().requires_grad_(False)

    def distance(self) -> Distance | None:
        """Distance of `encoder()` to the teacher on the held-out audio; None if no audio is held out."""
        return self.distance_of(self.encoder())


class Callback:
    """Base class of callbacks; override `on_step`.

    Callbacks are called in the main process only, while the other processes wait. Their effects are not part of the
    state of the run: after an interruption, they are called again for the steps after the checkpoint.
    """

    every: int = 1
    """Number of steps between calls; the callback is also called after the last step of a stage."""

    def on_step(self, state: TrainingState) -> Mapping[str, float] | None:
        """Observe the state of the run after a step.

        Returns:
            Values to be logged under `callback` in `run/log.jsonl`; None for none.
        """
        return None


def as_it_is(encoder: SpeechEncoder, student: Student, sparsity: float, final_values: str) -> SpeechEncoder:
    """The student's encoder, pruned by its gates to the size that the schedule has reached; unchanged without gates.

    Args:
        encoder: the encoder.
        student: its student.
        sparsity: target sparsity that the schedule has reached.
        final_values: see `GateSettings`.
    """
    gates, budget = student.gates, student.budget
    if gates is None or budget is None:
        return encoder
    target = max((1 - sparsity) * budget.dense_cost, smallest_cost(gates.layout, budget))
    log_alpha = gates.log_alpha.detach().cpu()
    values = surviving_values(log_alpha, final_values)
    chosen = final_masks(gates.layout, log_alpha, values, replace(budget, target=target))
    device = next(encoder.parameters()).device
    return slice_encoder(encoder.cpu(), chosen.masks).encoder.to(device)


class HeldOutDistance(Callback):
    """Logs the relative error of the hidden states on the held-out audio during training."""

    def __init__(self, every: int = 100) -> None:
        """Measure every `every` steps."""
        self.every = every

    def on_step(self, state: TrainingState) -> Mapping[str, float] | None:
        """Measure the encoder that the run would produce at this step."""
        distance = state.distance()
        return None if distance is None else {"relative_error": distance.relative_error}
