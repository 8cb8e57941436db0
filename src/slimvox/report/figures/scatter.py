"""Figure 2 and the Pareto front: quality against cost."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from slimvox.pruning.gates.final import TOLERANCE
from slimvox.report.figures.arms import Arm
from slimvox.report.figures.quality import Quality
from slimvox.report.figures.style import GREY, colour_and_marker, new_figure, panel_letter

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MILLION, GIGA = 1e6, 1e9
LEGEND_CHARACTERS_PER_INCH = 14
MARKER_CHARACTERS = 8
"""Width of the marker before a name in the legend, in characters."""


def quality_figure(arms: Sequence[Arm], quality: Quality) -> Figure:
    """Figure 2: quality against parameters, with a line per arm and bars from the minimum to the maximum over seeds."""
    figure = new_figure(6.4, 4.4)
    axes = figure.subplots()
    costs = millions_of_parameters(arms)
    scatter(axes, arms, costs, joined=True)
    for label, parameters, value in quality.others:
        if parameters:
            axes.plot(parameters / MILLION, value, "*", color="black", markersize=11, clip_on=False, zorder=4)
            axes.annotate(
                label, (parameters / MILLION, value), (0, 9), textcoords="offset points", ha="center"
            )
        else:
            axes.axhline(value, color=GREY, linestyle=":", linewidth=1)
            axes.annotate(label, (1, value), (-2, 3), xycoords=("axes fraction", "data"),
                          textcoords="offset points", ha="right", color=GREY)  # fmt: skip
    most = max([*costs.values(), *(parameters / MILLION for _, parameters, _ in quality.others)])
    _finish(axes, "parameters (millions)", quality, most)
    axes.set_ylabel(quality.axis)
    legend_below(figure, axes)
    return figure


def pareto_figure(arms: Sequence[Arm], quality: Quality, speedups: Mapping[str, float]) -> Figure:
    """Quality against parameters, MACs and, where measured, speed; a line joins the points that no other beats in both.

    Args:
        arms: arms of the runs.
        quality: quality of the runs.
        speedups: speed-up over the reference by label of the run; may be empty.
    """
    runs = [run for arm in arms for point in arm.points for run in point.runs]
    panels: list[tuple[str, dict[str, float], bool]] = [
        ("parameters (millions)", millions_of_parameters(arms), False),
        ("MACs for 10 s (billions)", {run.label: (run.macs_10s or 0) / GIGA for run in runs}, False),
    ]
    if any(point.mean(speedups) is not None for arm in arms for point in arm.points):
        panels.append(("speed-up (times)", dict(speedups), True))
    figure = new_figure(3.6 * len(panels) + 0.4, 4.3)
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for letter, axes, (title, costs, more_is_better) in zip("abc", grid, panels, strict=False):
        scatter(axes, arms, costs, joined=False)
        points = [
            (cost, point.quality)
            for arm in arms
            for point in arm.points
            if (cost := point.mean(costs)) is not None
        ]
        best = front(points, more_is_better=more_is_better, higher_is_better=quality.higher_is_better)
        axes.plot(
            *zip(*best, strict=True),
            color="black",
            linewidth=1,
            linestyle="--",
            zorder=1,
            label="Pareto front",
        )
        _finish(axes, title, quality, max(cost for cost, _ in points))
        panel_letter(axes, letter, title.partition(" (")[0])
    grid[0].set_ylabel(quality.axis)
    legend_below(figure, grid[0])
    return figure


def millions_of_parameters(arms: Sequence[Arm]) -> dict[str, float]:
    """Size of each run of the arms, by its label."""
    runs = (run for arm in arms for point in arm.points for run in point.runs)
    return {run.label: (run.parameters or 0) / MILLION for run in runs}


def legend_below(figure: Figure, axes: Axes, columns: int = 2) -> None:
    """Put the legend of one panel below all panels, in fewer columns if the names are long, and enlarge the figure."""
    handles, labels = axes.get_legend_handles_labels()
    width, height = figure.get_size_inches()
    characters = int(LEGEND_CHARACTERS_PER_INCH * width)
    longest = max(map(len, labels), default=0) + MARKER_CHARACTERS
    columns = max(1, min(columns, characters // longest))
    labels = [textwrap.fill(label, characters // columns - MARKER_CHARACTERS) for label in labels]
    lines = math.ceil(sum(label.count("\n") + 1 for label in labels) / columns)
    figure.set_size_inches(width, height + 0.2 * lines)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def front(
    points: Sequence[tuple[float, float]], *, more_is_better: bool, higher_is_better: bool
) -> list[tuple[float, float]]:
    """The points that no other beats in both coordinates, sorted by the first; costs within `TOLERANCE` count as equal.

    Args:
        points: cost and quality of each.
        more_is_better: whether a higher first coordinate is better (a speed).
        higher_is_better: whether a higher second coordinate is better.
    """

    def beats(other: tuple[float, float], point: tuple[float, float]) -> bool:
        cheaper = (
            other[0] >= point[0] * (1 - TOLERANCE)
            if more_is_better
            else other[0] <= point[0] * (1 + TOLERANCE)
        )
        return cheaper and (other[1] > point[1] if higher_is_better else other[1] < point[1])

    return sorted({point for point in points if not any(beats(other, point) for other in points)})


def scatter(axes: Axes, arms: Sequence[Arm], costs: Mapping[str, float], *, joined: bool) -> None:
    """A marker for each point of each arm, with bars from the minimum to the maximum over its runs."""
    for index, arm in enumerate(arms):
        placed = [(cost, point) for point in arm.points if (cost := point.mean(costs)) is not None]
        if not placed:
            continue
        colour, marker = colour_and_marker(index)
        axes.errorbar(
            [cost for cost, _ in placed],
            [point.quality for _, point in placed],
            yerr=[[point.spread[side] for _, point in placed] for side in (0, 1)],
            color=colour,
            marker=marker,
            linestyle="-" if joined else "none",
            markersize=6,
            capsize=3,
            linewidth=1.4,
            label=arm.label + _seeds([len(point.runs) for _, point in placed]),
            zorder=3,
        )


def _seeds(counts: Sequence[int]) -> str:
    """Text with the number of runs per point of an arm; empty if it is one each."""
    fewest, most = min(counts), max(counts)
    if most == 1:
        return ""
    return f" ({most} seeds)" if fewest == most else f" ({fewest} to {most} seeds)"


def _finish(axes: Axes, title: str, quality: Quality, most: float) -> None:
    axes.set_xlabel(title)
    axes.margins(0.1)
    if not quality.higher_is_better:
        axes.set_ylim(bottom=0)
    axes.set_xlim(0, 1.08 * most)
