"""Figure 3: the effect of the straight-through estimator, from runs with and without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from slimvox.report.figures.arms import STE, Arm, Point, target_of
from slimvox.report.figures.quality import Quality
from slimvox.report.figures.scatter import legend_below, millions_of_parameters, scatter
from slimvox.report.figures.style import COLOURS, GREY, new_figure, panel_letter
from slimvox.report.runs import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STRETCHES = 60
"""Number of intervals of steps over which curves are averaged."""
Pair = tuple[Arm, Arm]


def straight_through_pairs(arms: Sequence[Arm]) -> tuple[Pair, ...]:
    """Pairs of arms with and without the STE that are otherwise the same."""
    pairs = []
    for arm in arms:
        if arm.fields.get(STE) == "true":
            without = {**arm.fields, STE: "false"}
            pairs += [(arm, other) for other in arms if other.fields == without]
    return tuple(pairs)


def straight_through_figure(pair: Pair, quality: Quality) -> Figure:
    """Quality against parameters; loss over steps at the smallest common size; share of undecided gates."""
    sizes = _common_size(pair)
    logged = sizes is not None and all(_undecided(run) is not None for point in sizes for run in point.runs)
    panels = 1 + (sizes is not None) + logged
    figure = new_figure(3.6 * panels + 0.3, 3.9)
    grid = figure.subplots(1, panels, squeeze=False)[0]
    costs = millions_of_parameters(pair)
    scatter(grid[0], pair, costs, joined=True)
    grid[0].set_xlabel("parameters (millions)")
    grid[0].set_ylabel(quality.axis)
    grid[0].margins(y=0.25)
    grid[0].set_xlim(0, 1.08 * max(costs.values()))
    panel_letter(grid[0], "a", "after stage 2")
    if sizes is not None:
        _losses(grid[1], pair, sizes)
    if sizes is not None and logged:
        for index, point in enumerate(sizes):
            curves = [curve for run in point.runs if (curve := _undecided(run)) is not None]
            _curves(grid[2], curves, index)
        grid[2].set_xlabel("step of stage 1")
        grid[2].set_ylabel("share with 0.1 < P(z > 0) < 0.9")
        grid[2].set_ylim(bottom=0)
        panel_letter(grid[2], "c", "undecided gates")
    legend_below(figure, grid[0])
    return figure


def _common_size(pair: Pair) -> tuple[Point, Point] | None:
    """The points of the smallest target that both arms have, if their runs have logs."""
    for point in pair[0].points:
        for other in pair[1].points:
            same = target_of(point.runs[0]) == target_of(other.runs[0])
            if same and all(run.stage("prune") for run in (*point.runs, *other.runs)):
                return point, other
    return None


def _losses(axes: Axes, pair: Pair, sizes: tuple[Point, Point]) -> None:
    for index, point in enumerate(sizes):
        _curves(axes, [_loss(run) for run in point.runs], index)
    surgery = sizes[0].runs[0].surgery_step
    if sizes[0].runs[0].stage("finish"):
        axes.axvline(surgery, color=GREY, linestyle=":", linewidth=1)
        axes.annotate("surgery", (surgery, 1), (3, -3), xycoords=("data", "axes fraction"),
                      textcoords="offset points", va="top", color=GREY, fontsize=8.5)  # fmt: skip
    axes.set_xlabel("step")
    axes.set_ylabel("distillation loss")
    parameters = (sizes[0].runs[0].parameters or 0) / 1e6
    panel_letter(axes, "b", f"training, {parameters:.3g}M parameters")


Line = tuple[NDArray[np.float64], NDArray[np.float64]]


def _curves(axes: Axes, curves: Sequence[Line], index: int) -> None:
    """Each run's curve; the runs of one arm in one colour."""
    for steps, values in curves:
        axes.plot(steps, values, color=COLOURS[index], linewidth=1.3, alpha=1 if len(curves) == 1 else 0.75)


def _loss(run: RunRecord) -> Line:
    """Mean loss over intervals of steps, with a gap between the stages."""
    steps, means = [np.empty(0)], [np.empty(0)]
    for name, offset in (("prune", 0), ("finish", run.surgery_step)):
        values = np.array([record["distillation"] for record in run.stage(name)], float)
        at = np.array([record["step"] + offset for record in run.stage(name)], float)
        if not len(values):
            continue
        groups = np.array_split(
            np.arange(len(at)), min(round(STRETCHES * len(at) / len(run.log)) + 1, len(at))
        )
        steps += [np.array([at[group].mean() for group in groups]), np.full(1, np.nan)]
        means += [np.array([values[group].mean() for group in groups]), np.full(1, np.nan)]
    return np.concatenate(steps), np.concatenate(means)


def _undecided(run: RunRecord) -> Line | None:
    """Share of gates, over all structures, that are neither nearly closed nor nearly open; None without histograms."""
    steps, shares = [], []
    for record in run.stage("prune"):
        if "gates" in record:
            counts = np.sum(list(record["gates"].values()), axis=0)
            outer = max(1, len(counts) // 10)
            steps.append(float(record["step"]))
            shares.append(float(counts[outer:-outer].sum() / max(1, counts.sum())))
    return (np.array(steps), np.array(shares)) if steps else None
