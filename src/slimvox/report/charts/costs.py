"""Parameters and MACs by block, dense and pruned, as stacked bars."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from slimvox.report.charts.svg import WIDTH, Panel, drawing, element, shortened, text
from slimvox.report.runs import RunRecord
from slimvox.report.tables import BLOCKS, COSTS, by_block
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.util.quantities import short_number

LEFT, RIGHT, ROW = 92, 48, 26


def cost_panels(runs: Sequence[RunRecord]) -> tuple[Panel, ...]:
    """Parameters, and MACs for 10 s: a bar for each distinct dense encoder and one for each run."""
    encoders: list[tuple[str, EncoderAnatomy]] = []
    for run in runs:
        if run.dense is not None and run.dense not in [known for _, known in encoders]:
            encoders.append(("dense" if not encoders else f"{run.label}, dense", run.dense))
    encoders += [(run.label, run.anatomy) for run in runs if run.anatomy is not None]
    if not encoders:
        return ()
    counts = [(label, by_block(COSTS[0].by_block(anatomy))) for label, anatomy in encoders]
    work = [(label, by_block(COSTS[1].by_block(anatomy))) for label, anatomy in encoders]
    return (
        Panel(title="Parameters by block", chart=_stacks(counts, "parameters")),
        Panel(title="MACs for 10 s by block", chart=_stacks(work, "MACs")),
    )


def _stacks(bars: Sequence[tuple[str, tuple[int, ...]]], unit: str) -> Markup:
    scale = (WIDTH - LEFT - RIGHT) / max(1, *(sum(parts) for _, parts in bars))
    drawn = []
    for index, (label, parts) in enumerate(bars):
        x, y = float(LEFT), index * ROW + 4
        drawn.append(text(LEFT - 6, y + ROW / 2 + 1, shortened(label, 14), "cell", "end"))
        for place, part in enumerate(parts):
            title = element("title", f"{label}, {BLOCKS[place]}: {short_number(part)} {unit}")
            box = {"x": x, "y": y, "width": part * scale, "height": ROW - 7}
            drawn.append(element("rect", title, **box, class_=f"part b{place}"))
            x += part * scale
        drawn.append(text(x + 5, y + ROW / 2 + 1, short_number(sum(parts)), "cell"))
    totals = [f"{label} {short_number(sum(parts))}" for label, parts in bars]
    return drawing(len(bars) * ROW + 4, f"{unit} of each block, stacked", totals, *drawn)
