"""Parts of an update: clipping, gates and multipliers, and steps that are skipped."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from slimvox.pruning.gates import project
from slimvox.pruning.student import Student
from slimvox.util.errors import SlimvoxError

SKIPS_IN_A_ROW = 20
"""Number of consecutive steps without a finite gradient after which a stage fails."""
LARGEST_MOVE = 5.0
"""Maximum move of log_alpha in a projection, as a multiple of a step of Adam."""
logger = logging.getLogger("slimvox.pruning")


def clip_gradients(
    student: Student,
    optimisers: Mapping[str, torch.optim.Optimizer],
    most: float,
    scaler: torch.amp.GradScaler | None,
) -> tuple[Tensor, Tensor]:
    """Clip the gradients of the weights, after they are divided by the scale of the loss, if there is one.

    Args:
        student: student with gradients.
        optimisers: optimisers of all its parameters.
        most: maximum norm.
        scaler: scale of the loss; None if it is not scaled.

    Returns:
        Norm of the gradients before they were clipped, and 1 if all gradients, including those of gates and
        multipliers, are finite, else 0; scalars.
    """
    if scaler is not None:
        for optimiser in optimisers.values():
            scaler.unscale_(optimiser)
    norm = nn.utils.clip_grad_norm_(student.weights(), most)
    finite = norm.isfinite()
    for part in (student.gates, student.lagrangian):
        for parameter in () if part is None else part.parameters():
            if parameter.grad is not None:
                finite = finite & parameter.grad.isfinite().all()
    return norm, finite.float()


def step_controls(
    student: Student, optimisers: Sequence[torch.optim.Optimizer], target: float
) -> dict[str, Tensor]:
    """Step the optimisers of gates and multipliers; returns their values to log.

    Args:
        student: student with gradients.
        optimisers: optimisers of gates and multipliers; without multipliers, only that of the gates, which are
            projected to the target after the step.
        target: target sparsity t.
    """
    gates, lagrangian = student.gates, student.lagrangian
    before = None if gates is None or lagrangian is not None else gates.log_alpha.detach().clone()
    for optimiser in optimisers:
        optimiser.step()
    if before is not None:
        (adam,) = optimisers
        return _project(student, adam, before, target)
    if lagrangian is not None:
        return {"lambda1": lagrangian.linear, "lambda2": lagrangian.quadratic}
    return {}


def _project(
    student: Student, adam: torch.optim.Optimizer, before: Tensor, target: float
) -> dict[str, Tensor]:
    """Project the gates onto the target after a step on the loss, from log_alpha `before` it."""
    gates = student.gates
    assert gates is not None
    state, (group,) = adam.state[gates.log_alpha], adam.param_groups
    mean_square = state["exp_avg_sq"] / (1 - group["betas"][1] ** float(state["step"]))
    sparsity, multiplier = project(
        gates,
        before,
        mean_square.sqrt(),
        student.expected_sparsity,
        target,
        max_change=LARGEST_MOVE * group["lr"],
    )
    # As Adam would have it: the multiplier of a penalty that has the gates at the same place after this step.
    return {"sparsity": sparsity, "lambda1": -multiplier / group["lr"]}


class Skips:
    """Counts consecutive steps without a finite gradient.

    A step with a bad batch does not end a run of days, but a stage that does not recover ends. Gradients are the same
    in all processes, so all of them skip the same steps.
    """

    def __init__(self) -> None:
        self._in_a_row = 0

    def count(self, skipped: bool, where: str, slower: str, loss_scale: float) -> None:
        """Count a step.

        A loss that is scaled by more than 1 may overflow: its scale is too large, and is halved.

        Args:
            skipped: true if its gradient was not finite.
            where: the step, for messages.
            slower: setting of a recipe with a lower learning rate, for the error message.
            loss_scale: scale of the loss in fp16; 0 otherwise.

        Raises:
            SlimvoxError: if it is one too many.
        """
        if not skipped:
            self._in_a_row = 0
            return
        if loss_scale > 1:
            return
        self._in_a_row += 1
        if self._in_a_row >= SKIPS_IN_A_ROW:
            raise SlimvoxError(
                f"the gradients of {SKIPS_IN_A_ROW} steps in a row were not finite, up to {where}; start again with a"
                f" lower learning rate, such as `--set {slower}`, or with `--precision float32`"
            )
        logger.warning("Skipped %s: its gradient is not finite.", where)
