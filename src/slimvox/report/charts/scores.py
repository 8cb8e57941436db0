"""SUPERB scores as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from slimvox.evaluation.tasks import tasks
from slimvox.report.charts.svg import WIDTH, Panel, drawing, element, series_class, shortened, text
from slimvox.report.score_files import ScoreSet

NOTES = {
    "mini": "0 is the filter bank, 1000 the embedded teacher.",
    "mini_1": "Version 1 of mini-SUPERB: not comparable with later scores.",
}
LEFT, RIGHT, ROW = 106, 98, 24


def score_panels(sets: Sequence[ScoreSet], series: Mapping[str, int]) -> tuple[Panel, ...]:
    """A panel for the score over all tasks, if there is one, and one for each metric.

    Args:
        sets: the models, in the order of their bars.
        series: colours by label of the model; other models are grey.
    """
    panels = []
    for name in dict.fromkeys(key for each in sets for key in each.overall):
        bars = [(each.label, each.overall[name], None) for each in sets if name in each.overall]
        note = NOTES.get(name, "")
        chart = _bars(bars, name, series, lambda value: f"{value:.0f}", None)
        panels.append(Panel(title=f"All tasks: {name} ↑", chart=chart, note=note))
    for metric in (metric.name for task in tasks() for metric in task.metrics):
        rows = [(each.label, each.metrics[metric]) for each in sets if metric in each.metrics]
        if rows:
            panels.append(_metric(metric, rows, series))
    return tuple(panels)


def _metric(metric: str, rows: Sequence[tuple[str, Mapping[str, Any]]], series: Mapping[str, int]) -> Panel:
    first = rows[0][1]
    arrow = "↑" if first["higher_is_better"] else "↓"
    percent = bool(first["percent"])
    chart = _bars(
        [(label, float(score["mean"]), score["spread"]) for label, score in rows],
        metric,
        series,
        lambda value: f"{value:.1f} %" if percent else f"{value:.4f}",
        float(first["chance"]),
    )
    note = f"Dotted: chance ({first['chance']:.3g})." if first["chance"] else "Chance is 0."
    return Panel(
        title=f"{metric.partition('_')[0].upper()}: {first['title']} {arrow}", chart=chart, note=note
    )


def _bars(
    bars: Sequence[tuple[str, float, float | None]],
    name: str,
    series: Mapping[str, int],
    figure: Any,
    chance: float | None,
) -> Markup:
    """Horizontal bars from 0, with the spread as a whisker and chance as a dotted line."""
    longest = max([*(value + (spread or 0) for _, value, spread in bars), chance or 0.0, 1e-9])
    scale = (WIDTH - LEFT - RIGHT) / longest
    parts, figures, values = [], [], []
    for index, (label, value, spread) in enumerate(bars):
        y = index * ROW + 3
        style = series_class(series[label]) if label in series else "neutral"
        written = figure(value) + (f" ± {figure(spread).removesuffix(' %')}" if spread is not None else "")
        values.append(f"{label} {written}")
        title = element("title", f"{label}: {written}")
        parts.append(text(LEFT - 6, y + ROW / 2 + 1, shortened(label, 17), "cell", "end"))
        parts.append(
            element(
                "rect",
                title,
                x=LEFT,
                y=y,
                width=max(0.0, value * scale),
                height=ROW - 8,
                rx=2,
                class_=f"bar {style}",
            )
        )
        if spread:
            middle = y + (ROW - 8) / 2
            ends = (LEFT + max(0.0, value - spread) * scale, LEFT + (value + spread) * scale)
            parts.append(element("line", x1=ends[0], x2=ends[1], y1=middle, y2=middle, class_="whisker"))
        end = LEFT + (max(0.0, value) + (spread or 0)) * scale + 5
        figures.append(text(end, y + ROW / 2 + 1, written, "halo strong"))
    height = len(bars) * ROW + 4
    if chance:
        x = LEFT + chance * scale
        parts.append(element("line", x1=x, x2=x, y1=0, y2=height, class_="mark"))
    parts.append(element("line", x1=LEFT, x2=LEFT, y1=0, y2=height, class_="base"))
    return drawing(height, f"{name} of each model", values, *parts, *figures)
