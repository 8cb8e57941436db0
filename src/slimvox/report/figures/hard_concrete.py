"""Figure 1: the hard concrete distribution and the effect of the straight-through estimator on its gradient."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from slimvox.pruning.gates.hard_concrete import BETA, LEFT, RIGHT, SHIFT, open_probability, sample, stretched
from slimvox.report.figures.style import COLOURS, GREY, new_figure, panel_letter

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SAMPLES = 500
"""Number of samples, as in the paper."""
SPAN = 8.0
"""Maximum of log_alpha on the axes, which start at minus this."""
USUAL_START = 4.6
"""log_alpha at which the paper's gates start (a drop rate of 0.01)."""
BINS = 30
QUADRATURE = 200_000
"""Points at which gradients are averaged."""
LOG_ALPHA = r"log $\alpha$"


def hard_concrete_figure(seed: int = 0) -> Figure:
    """s_bar and z as distributions (log_alpha = 0) and over log_alpha, and the gradient of z with and without the STE.

    Args:
        seed: random seed of the samples.
    """
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(SAMPLES, generator=generator)
    log_alpha = torch.linspace(-SPAN, SPAN, SAMPLES)
    figure = new_figure(7.2, 7.8)
    axes = figure.subplots(3, 2, sharey="row")
    _distributions(axes[0, 0], axes[0, 1], u)
    _samples(axes[1, 0], axes[1, 1], log_alpha, u)
    for place, straight_through in ((axes[2, 0], False), (axes[2, 1], True)):
        _gradient(place, log_alpha, u, straight_through=straight_through)
    return figure


def share_with_gradient(log_alpha: float) -> float:
    """P(0 < s_bar < 1): the share of samples with a gradient without the STE."""
    one = BETA * math.log((1 - LEFT) / (RIGHT - 1))
    return _sigmoid(one - log_alpha) - _sigmoid(SHIFT - log_alpha)


def share_of_gradient(log_alpha: float) -> float:
    """The mean of dz / d log_alpha without the STE, as a share of the mean with it.

    It is far above `share_with_gradient`: samples are clipped where the sigmoid is flat, so that the STE adds little
    gradient for them. Without the STE the mean gradient is the derivative of E[z], with it that of E[s_bar].
    """
    u = (torch.arange(QUADRATURE, dtype=torch.float64) + 0.5) / QUADRATURE
    at = torch.full_like(u, log_alpha)
    without, with_estimator = (gradients(at, u, straight_through=ste).mean() for ste in (False, True))
    return float(without / with_estimator)


def gradients(log_alpha: torch.Tensor, u: torch.Tensor, *, straight_through: bool) -> torch.Tensor:
    """dz / d log_alpha of each sample, by autograd."""
    leaf = log_alpha.clone().requires_grad_(True)
    z = sample(leaf, u, straight_through=straight_through)
    (slope,) = torch.autograd.grad(z.sum(), leaf)
    return slope


def _distributions(left: Axes, right: Axes, u: torch.Tensor) -> None:
    zero = torch.zeros_like(u)
    edges = np.linspace(LEFT, RIGHT, BINS + 1).tolist()
    s_bar, z = stretched(zero, u).numpy(), sample(zero, u, straight_through=False).numpy()
    left.hist(s_bar, edges, color=COLOURS[0], alpha=0.75, label=f"{SAMPLES} samples")
    # The density is unbounded at both ends.
    middle = np.linspace(LEFT + 0.005, RIGHT - 0.005, 400)
    expected = SAMPLES * (edges[1] - edges[0]) * _density(middle)
    left.plot(middle, expected, color="black", linewidth=1.2, label="density")
    left.legend(loc="upper center")
    panel_letter(left, "a", rf"$\bar s$ at {LOG_ALPHA} = 0")
    right.hist(z, edges, color=COLOURS[1], alpha=0.75)
    closed, open_ = float((z == 0).mean()), float((z == 1).mean())
    exact = 1 - float(open_probability(torch.zeros(())))
    right.text(
        0.5, 0.95,
        f"exactly 0: {closed:.1%}, exactly 1: {open_:.1%}\n(expected {exact:.1%} each)",
        transform=right.transAxes, ha="center", va="top",
    )  # fmt: skip
    panel_letter(right, "b", f"z at {LOG_ALPHA} = 0")
    right.set_ylim(0, 1.35 * np.histogram(z, edges)[0].max())
    left.set_ylabel(f"samples of {SAMPLES}")
    left.set_xlabel(r"$\bar s$")
    right.set_xlabel("z")


def _samples(left: Axes, right: Axes, log_alpha: torch.Tensor, u: torch.Tensor) -> None:
    half = torch.full_like(u, 0.5)
    drawn: tuple[tuple[Axes, torch.Tensor, torch.Tensor, str], ...] = (
        (left, stretched(log_alpha, u), stretched(log_alpha, half), COLOURS[0]),
        (
            right,
            sample(log_alpha, u, straight_through=False),
            sample(log_alpha, half, straight_through=False),
            COLOURS[1],
        ),
    )
    for axes, values, median, colour in drawn:
        axes.scatter(log_alpha.numpy(), values.numpy(), s=9, color=colour, alpha=0.6, linewidths=0)
        axes.plot(log_alpha.numpy(), median.numpy(), color="black", linewidth=1.2, label="median")
        for bound in (0.0, 1.0):
            axes.axhline(bound, color=GREY, linewidth=0.8, linestyle=":")
        axes.set_xlabel(LOG_ALPHA)
    panel_letter(left, "c", rf"$\bar s$ over {LOG_ALPHA}")
    panel_letter(right, "d", f"z over {LOG_ALPHA}")
    left.set_ylabel("value")
    left.legend(loc="lower right")


def _gradient(axes: Axes, log_alpha: torch.Tensor, u: torch.Tensor, *, straight_through: bool) -> None:
    slope = gradients(log_alpha, u, straight_through=straight_through).numpy()
    clipped = sample(log_alpha, u, straight_through=False)
    inside = ((clipped > 0) & (clipped < 1)).numpy()
    x = log_alpha.numpy()
    style: dict[str, Any] = {"s": 11, "linewidths": 0, "alpha": 0.7}
    axes.scatter(x[inside], slope[inside], color=COLOURS[2], label="0 < $\\bar s$ < 1", **style)
    axes.scatter(x[~inside], slope[~inside], color=COLOURS[3], marker="D", label="clipped", **style)
    passing = "all samples"
    if not straight_through:
        share = share_of_gradient(USUAL_START)
        passing = (
            f"{share_with_gradient(USUAL_START):.1%} of samples,\nwhich carry {share:.0%} of the mean in (f)"
        )
    axes.text(
        0.02, 0.97,
        f"at {LOG_ALPHA} = {USUAL_START:g} a gradient\nfor {passing}",
        transform=axes.transAxes, va="top", fontsize=8.5,
    )  # fmt: skip
    axes.legend(loc="upper right", handletextpad=0.1)
    axes.set_ylim(-0.03, 0.72)
    axes.set_xlabel(LOG_ALPHA)
    name = "with" if straight_through else "without"
    panel_letter(axes, "f" if straight_through else "e", f"gradient of z, {name} STE")
    if not straight_through:
        axes.set_ylabel(f"dz / d {LOG_ALPHA}")


def _density(s_bar: NDArray[np.float64]) -> NDArray[np.float64]:
    """Density of s_bar at log_alpha = 0."""
    s = (s_bar - LEFT) / (RIGHT - LEFT)
    below = 1 / (1 + np.exp(-BETA * np.log(s / (1 - s))))
    density: NDArray[np.float64] = BETA * below * (1 - below) / (s * (1 - s)) / (RIGHT - LEFT)
    return density


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))
