"""Curves over training steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from slimvox.report.charts.svg import (
    WIDTH,
    drawing,
    element,
    number,
    series_class,
    text,
    tick_label,
    ticks,
)

LEFT, RIGHT, TOP, BOTTOM, HEIGHT = 44, 8, 8, 30, 190
POINTS = 150
"""Maximum number of points of a curve; longer ones are drawn as means over intervals, with a band of their range."""

Scale = Callable[[float], float]
"""Mapping from a value to its position in the chart."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Values over steps."""

    label: str
    series: int
    """Index of the colour."""
    steps: Sequence[float]
    values: Sequence[float]
    dashed: bool = False
    band: bool = False
    """Shade the range between the minimum and maximum of each interval."""
    breaks: tuple[int, ...] = ()
    """Steps after which a new curve starts (between the stages)."""


def line_chart(
    curves: Sequence[Curve], label: str, *, marks: Sequence[tuple[float, str]] = (), from_zero: bool = False
) -> Markup:
    """Curves in one frame.

    Args:
        curves: at least one, each with at least one value.
        label: beginning of the text alternative, followed by the final values of the curves.
        marks: steps to mark by a vertical line, with their labels.
        from_zero: whether the axis starts at 0.
    """
    drawn = [(curve, piece) for curve in curves for piece in _pieces(curve)]
    means = np.concatenate([piece.mean for _, piece in drawn])
    low, high = float(means.min()), float(means.max())
    low = min(0.0, low) if from_zero else low
    room = 0.06 * (high - low) or max(abs(high) * 0.1, 1e-6)
    low, high = (low if from_zero and low == 0 else low - room), high + room
    last = max(1.0, *(float(piece.step[-1]) for _, piece in drawn))

    def across(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / last

    def up(value: float) -> float:
        inside = min(max(value, low), high)
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - inside) / (high - low)

    parts = _axes(low, high, last, up, across)
    for step, _ in marks:
        x = across(step)
        parts.append(element("line", x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM, class_="mark"))
    for curve, piece in drawn:
        if curve.band:
            edge = [(s, v) for s, v in zip(piece.step, piece.most, strict=True)]
            edge += [(s, v) for s, v in zip(piece.step[::-1], piece.least[::-1], strict=True)]
            shape = " ".join(f"{number(across(s))},{number(up(v))}" for s, v in edge)
            parts.append(element("polygon", points=shape, class_=f"band {series_class(curve.series)}"))
    for curve, piece in drawn:
        line = " ".join(
            f"{number(across(s))},{number(up(v))}" for s, v in zip(piece.step, piece.mean, strict=True)
        )
        style = f"line {series_class(curve.series)}" + (" dashed" if curve.dashed else "")
        parts.append(element("polyline", element("title", curve.label), points=line, class_=style))
    for step, name in marks:
        side = "end" if across(step) > WIDTH * 0.7 else "start"
        parts.append(text(across(step) + (-5 if side == "end" else 5), TOP + 10, name, "halo", side))
    ends = [
        f"{curve.label}{' (dashed)' if curve.dashed else ''} from {curve.values[0]:.3g} at step {curve.steps[0]:g}"
        f" to {curve.values[-1]:.3g} at step {curve.steps[-1]:g}"
        for curve in curves
    ]
    return drawing(HEIGHT, label, ends, *parts)


@dataclass(frozen=True)
class _Piece:
    step: NDArray[np.float64]
    mean: NDArray[np.float64]
    least: NDArray[np.float64]
    most: NDArray[np.float64]


def _pieces(curve: Curve) -> list[_Piece]:
    steps, values = np.asarray(curve.steps, float), np.asarray(curve.values, float)
    cuts = [int(np.searchsorted(steps, step, side="right")) for step in curve.breaks]
    pieces = []
    for part_steps, part in zip(np.split(steps, cuts), np.split(values, cuts), strict=True):
        if not len(part):
            continue
        stretches = min(len(part), max(2, round(POINTS * len(part) / len(values))))
        groups = np.array_split(np.arange(len(part)), stretches)
        pieces.append(
            _Piece(
                np.array([part_steps[group].mean() for group in groups]),
                np.array([part[group].mean() for group in groups]),
                np.array([part[group].min() for group in groups]),
                np.array([part[group].max() for group in groups]),
            )
        )
    return pieces


def _axes(low: float, high: float, last: float, up: Scale, across: Scale) -> list[Markup]:
    parts = []
    values = ticks(low, high)
    for value in values:
        y = up(value)
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(text(LEFT - 5, y + 4, tick_label(value, values), "axis", "end"))
    steps = ticks(0, last, 5)
    for value in steps:
        anchor = "end" if across(value) > WIDTH - RIGHT - 12 else "middle"
        parts.append(text(across(value), HEIGHT - BOTTOM + 14, tick_label(value, steps), "axis", anchor))
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, "step", "axis", "middle"))
    return parts
