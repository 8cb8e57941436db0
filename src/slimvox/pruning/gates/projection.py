"""Gates kept on the budget by projection, in place of a penalty."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from slimvox.pruning.gates.gates import Gates

FLOOR = 1e-3
"""Least root mean square gradient of a gate, as a share of the mean over gates: what the loss has not touched yet is
not infinitely cheap."""
TOLERANCE = 1e-4
"""Maximum difference between the projected and the target sparsity."""
DOUBLINGS, BISECTIONS = 30, 30
"""Maximum numbers of steps in the search for the multiplier."""


@torch.no_grad()
def project(
    gates: Gates,
    before: Tensor,
    root_mean_squares: Tensor,
    expected_sparsity: Callable[[], Tensor],
    target: float,
    largest_move: float,
) -> tuple[float, float | None]:
    """Move the gates from where a step of the loss took them to where the expected sparsity is at its target.

    Of all such points it is, to first order, the nearest in the metric in which Adam descends. With w the root mean
    square of the loss's gradient of a gate,

        minimise sum_i w_i (move_i)^2  subject to  s(log_alpha + move) = t

    has the solution move_i = m (ds / dlog_alpha_i) / w_i. This is what a Lagrangian with a multiplier known in advance
    would add to a step of Adam; m is searched for. A multiplier that ascends (Wang, Wohlwend and Lei, EMNLP 2020) comes
    to its value late: behind a target that rises it lags, and after gates that did not answer at first it overshoots.

    Gates that are above the target are only taken back towards where they were before the step.

    Args:
        gates: after the step; changed in place.
        before: log_alpha before the step, (gates,).
        root_mean_squares: of the loss's gradient of log_alpha, (gates,), at least 0.
        expected_sparsity: s of these gates as they are, a scalar, differentiable.
        target: t.
        largest_move: by how much log_alpha may change, in units of log_alpha; where that is not enough, the gates stay
            short of the target.

    Returns:
        Expected sparsity after the move, and the multiplier m: above 0 where gates were closed; None where the target
        was out of reach.
    """
    log_alpha = gates.log_alpha
    stepped = log_alpha.clone()
    with torch.enable_grad():
        sparsity = expected_sparsity()
        (slope,) = torch.autograd.grad(sparsity, log_alpha)
    reached = float(sparsity.detach())
    if abs(reached - target) <= TOLERANCE:
        return reached, 0.0
    weights = root_mean_squares + FLOOR * root_mean_squares.mean()
    direction = slope / weights if bool(weights.all()) else slope
    steepness = float((slope * direction).sum())
    if steepness == 0:
        return reached, None
    gap = target - reached
    highest = torch.maximum(before, stepped) if gap < 0 else stepped

    def move(multiplier: float) -> float:
        moved = stepped + (multiplier * direction).clamp(-largest_move, largest_move)
        log_alpha.copy_(torch.minimum(moved, highest))
        return float(expected_sparsity())

    def beyond(reached: float) -> bool:
        return reached >= target if gap > 0 else reached <= target

    # Where the target would be on a straight line; nearly always that is close enough.
    low, high = 0.0, gap / steepness
    reached = move(high)
    for _ in range(DOUBLINGS):
        if beyond(reached) or abs(reached - target) <= TOLERANCE:
            break
        low, high = high, 2 * high
        reached = move(high)
    else:
        return reached, None
    middle = high
    for _ in range(BISECTIONS):
        if abs(reached - target) <= TOLERANCE:
            break
        middle = (low + high) / 2
        reached = move(middle)
        low, high = (low, middle) if beyond(reached) else (middle, high)
    return reached, middle
