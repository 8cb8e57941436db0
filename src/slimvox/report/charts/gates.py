"""Convergence of the gates: histograms over the steps of stage 1."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from slimvox.report.charts.svg import WIDTH, Panel, drawing, element, number, text, tick_label, ticks
from slimvox.report.runs import RunRecord
from slimvox.structures import structure, structure_names

LEFT, RIGHT, TOP, BOTTOM, HEIGHT = 38, 8, 8, 30, 160
COLUMNS, SHADES = 50, 12
Snapshot = tuple[int, Sequence[int]]


def gate_panels(run: RunRecord) -> tuple[Panel, ...]:
    """A panel for each structure that was gated; empty for runs that logged no histograms."""
    histories: dict[str, list[Snapshot]] = {}
    for record in run.stage("prune"):
        for name, counts in record.get("gates", {}).items():
            histories.setdefault(name, []).append((int(record["step"]), counts))
    known = [name for name in structure_names() if name in histories]
    others = [name for name in histories if name not in known]
    return tuple(
        _panel(structure(name).title if name in known else name, histories[name])
        for name in (*known, *others)
    )


def _panel(title: str, history: Sequence[Snapshot]) -> Panel:
    counts = history[-1][1]
    total, bins = max(1, sum(counts)), len(counts)
    outer = max(1, bins // 10)
    closed, open_ = sum(counts[:outer]) / total, sum(counts[-outer:]) / total
    note = (
        f"{sum(counts)} gates; in the last histogram {closed:.0%} closed (below 0.1), {open_:.0%} open (above 0.9),"
        f" {max(0.0, 1 - closed - open_):.0%} between."
    )
    return Panel(title=title.capitalize(), chart=_history(title, history, note), note=note)


def _history(title: str, history: Sequence[Snapshot], summary: str) -> Markup:
    """A heat map of P(open) over steps, coloured by the square root of the share of gates in each cell."""
    last, drawn = history[-1][0], _thinned(history)
    high, wide = HEIGHT - TOP - BOTTOM, WIDTH - LEFT - RIGHT
    parts = [element("rect", x=LEFT, y=TOP, width=wide, height=high, class_="frame")]
    shades: dict[int, list[str]] = {}
    began = 0
    for step, counts in drawn:
        x, width = LEFT + wide * began / last, wide * (step - began) / last
        total, tall = max(1, sum(counts)), high / len(counts)
        for index, count in enumerate(counts):
            if count:
                y = TOP + high - (index + 1) * tall
                shade = max(1, round(SHADES * math.sqrt(count / total)))
                cell = f"M{number(x)} {number(y)}h{number(width)}v{number(tall)}h{number(-width)}z"
                shades.setdefault(shade, []).append(cell)
        began = step
    parts += [
        element("path", d="".join(cells), class_="heat crisp", fill_opacity=shade / SHADES)
        for shade, cells in sorted(shades.items())
    ]
    for value in (0.0, 0.5, 1.0):
        parts.append(text(LEFT - 5, TOP + high * (1 - value) + 4, f"{value:g}", "axis", "end"))
    steps = ticks(0, last, 5)
    for value in steps:
        x = LEFT + wide * value / last
        anchor = "end" if x > WIDTH - RIGHT - 12 else "middle"
        parts.append(text(x, HEIGHT - BOTTOM + 14, tick_label(value, steps), "axis", anchor))
    parts.append(text(LEFT + wide / 2, HEIGHT - 4, "step", "axis", "middle"))
    label = f"probability of being open of the gates of {title} over steps"
    return drawing(HEIGHT, label, [summary], *parts)


def _thinned(history: Sequence[Snapshot]) -> Sequence[Snapshot]:
    """Up to `COLUMNS` of the snapshots, including the last."""
    every = math.ceil(len(history) / COLUMNS)
    return history[::-1][::every][::-1]
