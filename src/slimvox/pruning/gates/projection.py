"""Projection of the gates onto the budget, as an alternative to a penalty."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from slimvox.pruning.gates.gates import Gates

FLOOR = 1e-3
"""Minimum root mean square gradient of a gate, as a share of the mean over gates, so that gates without a gradient so
far are not moved without limit.
"""
TOLERANCE = 1e-4
"""Maximum difference between the projected and the target sparsity."""
HOST_DEVICES = ("cpu",)
"""Types of devices whose values the host reads without waiting."""
FIRST_GROWTH, GROWTH = (1.02, 4.0), (2.0, 4.0)
"""Minimum and maximum factor by which the multiplier grows, after the first evaluation and after later ones, until the
sparsity is beyond its target."""
EVALUATIONS, UNSEEN_EVALUATIONS = 20, 8
"""Maximum number of evaluations in the search for the multiplier, and their number on a device for which the host would
have to wait. Most steps of real runs take two to four."""


@torch.no_grad()
def project(
    gates: Gates,
    before: Tensor,
    root_mean_squares: Tensor,
    expected_sparsity: Callable[[], Tensor],
    target: float,
    max_change: float,
) -> tuple[Tensor, Tensor]:
    """Move the gates after a step on the loss to the nearest point at which the expected sparsity is at its target.

    To first order, the point is the nearest in the metric of Adam. With w the root mean
    square of the loss's gradient of a gate,

        minimise sum_i w_i (move_i)^2  subject to  s(log_alpha + move) = t

    has the solution move_i = m (ds / dlog_alpha_i) / w_i. A Lagrangian whose multiplier were known in advance would add
    the same to a step of Adam; m is found by false position. A multiplier trained by gradient ascent (Wang, Wohlwend
    and Lei, EMNLP 2020) reaches its value late: it lags behind a rising target, and overshoots after gates that reacted
    slowly.

    If the sparsity is above the target, gates are only moved back towards their values before the step.

    The host does not read values if it would have to wait for a device: the search then always takes
    `UNSEEN_EVALUATIONS`, of which those after its end change nothing.

    Args:
        gates: gates after the step; changed in place.
        before: log_alpha before the step, (gates,).
        root_mean_squares: root mean squares of the loss's gradient of log_alpha, (gates,), at least 0.
        expected_sparsity: expected sparsity s of these gates, a scalar, differentiable.
        target: target sparsity t.
        max_change: maximum change of log_alpha; if it is not enough, the gates do not reach the target.

    Returns:
        Expected sparsity after the move, and the multiplier m, above 0 if gates were closed and NaN if the target was
        out of reach; scalars on the device of the gates.
    """
    log_alpha = gates.log_alpha
    stepped = log_alpha.clone()
    with torch.enable_grad():
        sparsity = expected_sparsity()
        (slope,) = torch.autograd.grad(sparsity, log_alpha)
    reached = sparsity.detach()
    weights = root_mean_squares + FLOOR * root_mean_squares.mean()
    direction = torch.where(weights.all(), slope / weights, slope)
    steepness = (slope * direction).sum()
    gap = target - reached
    highest = torch.where(gap < 0, torch.maximum(before, stepped), stepped)
    found = gap.abs() <= TOLERANCE
    ended = found | (steepness == 0)
    # Where the target would be if the sparsity were linear in the multiplier.
    multiplier = torch.where(ended, 0.0, gap / steepness)
    # A multiplier on either side of the target, and how far the sparsity is beyond the target there, in units of the
    # gap.
    low, low_excess = torch.zeros_like(multiplier), -torch.ones_like(multiplier)
    high, high_excess = multiplier, torch.zeros_like(multiplier)
    following, enclosed, beyond = multiplier, torch.zeros_like(ended), torch.zeros_like(ended)
    seen = log_alpha.device.type in HOST_DEVICES
    for number in range(EVALUATIONS if seen else UNSEEN_EVALUATIONS):
        if seen and bool(ended):
            break
        multiplier = following
        moved = stepped + (multiplier * direction).clamp(-max_change, max_change)
        log_alpha.copy_(torch.minimum(moved, highest))
        reached = torch.where(ended, reached, expected_sparsity())
        found = (reached - target).abs() <= TOLERANCE
        ended = ended | found
        excess, was_beyond = (reached - target) / gap, beyond
        beyond = excess >= 0
        # False position. An end that stays twice in a row counts half, because otherwise the other end approaches the
        # target slowly (Illinois method; Dowell and Jarratt, "A modified regula falsi method", 1971).
        stays = enclosed & (beyond == was_beyond)
        weight = torch.where(stays, 0.5, 1.0)
        low, high = torch.where(beyond, low, multiplier), torch.where(beyond, multiplier, high)
        low_excess = torch.where(beyond, weight * low_excess, excess)
        high_excess = torch.where(beyond, excess, weight * high_excess)
        enclosed = enclosed | beyond
        between = low - low_excess * (high - low) / (high_excess - low_excess)
        factor = (FIRST_GROWTH[0] / (1 + excess)).clamp(*(GROWTH if number else FIRST_GROWTH))
        following = torch.where(enclosed, between, factor * multiplier)
        following = torch.where(ended, multiplier, following)
    return reached, torch.where(found | enclosed, multiplier, torch.nan)
