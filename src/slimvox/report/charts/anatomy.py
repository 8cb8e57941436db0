"""Charts of an anatomy: heat maps of heads, bars of widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from slimvox.report.charts.svg import WIDTH, Panel, drawing, element, text
from slimvox.structures import Structure, structures
from slimvox.structures.anatomy import EncoderAnatomy

LEFT, ROW, TOP = 34, 22, 18
STRONG = 0.62
"""Share above which the number in a cell has the light colour."""


def anatomy_panels(anatomy: EncoderAnatomy, dense: EncoderAnatomy) -> tuple[Panel, ...]:
    """One panel per structure that is not a whole block: a heat map if its spans lie in heads, else bars."""
    panels = []
    for structure in structures():
        indices = [address.index for address in structure.addresses(dense)]
        if structure.kind == "block" or not indices:
            continue
        if structure.span_per_owner:
            chart = _map(structure, anatomy, dense, indices)
        else:
            chart = _bars(
                [str(index + 1) for index in indices],
                [sum(structure.spans(anatomy, index)) for index in indices],
                [sum(structure.spans(dense, index)) for index in indices],
                "layer" if structure.per_layer else "convolution",
                structure.title,
            )
        panels.append(Panel(title=structure.title.capitalize(), chart=chart))
    return tuple(panels)


def _map(
    structure: Structure, anatomy: EncoderAnatomy, dense: EncoderAnatomy, indices: Sequence[int]
) -> Markup:
    """A heat map with layers down and heads across; a cell is darker the larger the share of its units that is left."""
    heads = max(len(structure.spans(dense, index)) for index in indices)
    cell = (WIDTH - LEFT) / heads
    parts = [text(0, 11, "layer", "axis")]
    parts += [
        text(
            LEFT + (head + 0.5) * cell,
            11,
            ("head " if not head and heads <= 8 else "") + str(head + 1),
            "axis",
            "middle",
        )
        for head in range(heads)
    ]
    values = []
    for row, index in enumerate(indices):
        y = TOP + row * ROW
        parts.append(text(LEFT - 6, y + ROW / 2 + 4, str(index + 1), "axis", "end"))
        before = dict(zip(structure.span_positions(dense, index), structure.spans(dense, index), strict=True))
        now = dict(
            zip(structure.span_positions(anatomy, index), structure.spans(anatomy, index), strict=True)
        )
        parts += _row(now, before, index, y, cell)
        left = ", ".join(str(now.get(head, "none")) for head in before)
        values.append(f"layer {index + 1} {left}")
    label = f"{structure.title} left of each head of each layer"
    return drawing(TOP + len(indices) * ROW, label, values, *parts)


def _row(
    now: Mapping[int, int], before: Mapping[int, int], index: int, y: float, cell: float
) -> list[Markup]:
    parts = []
    for head, width in before.items():
        kept = now.get(head)
        x, share = LEFT + head * cell, (kept or 0) / max(1, width)
        box = {"x": x + 1, "y": y + 1, "width": cell - 2, "height": ROW - 2, "rx": 2}
        state = "gone" if kept is None else f"{kept} of {width}"
        title = element("title", f"layer {index + 1}, head {head + 1}: {state}")
        if kept is None:
            parts.append(element("rect", title, **box, class_="gone"))
            parts.append(text(x + cell / 2, y + ROW / 2 + 4, "×", "faint", "middle"))  # noqa: RUF001
            continue
        parts.append(element("rect", title, **box, class_="heat", fill_opacity=round(share, 3)))
        parts.append(element("rect", **box, class_="frame"))
        parts.append(
            text(x + cell / 2, y + ROW / 2 + 4, str(kept), "on" if share > STRONG else "cell", "middle")
        )
    return parts


def _bars(
    names: Sequence[str], kept: Sequence[int], before: Sequence[int], what: str, title_of_all: str
) -> Markup:
    """A bar for each address, in a frame as long as its dense width (the longest frame has the full width)."""
    right = 78
    scale = (WIDTH - LEFT - right) / max(*before, 1)
    parts = [text(0, 11, what, "axis")]
    for index, (name, now, dense) in enumerate(zip(names, kept, before, strict=True)):
        y = TOP + index * ROW
        box = {"x": LEFT, "y": y + 3, "height": ROW - 6, "rx": 2}
        title = element("title", f"{what} {name}: {now} of {dense}")
        parts += [
            text(LEFT - 6, y + ROW / 2 + 4, name, "axis", "end"),
            element("rect", title, **box, width=max(1.0, dense * scale), class_="track"),
            element("rect", title, **box, width=now * scale, class_="heat"),
            text(WIDTH, y + ROW / 2 + 4, f"{now} of {dense}" if now else f"none of {dense}", "cell", "end"),
        ]
    values = [f"{name} {now} of {dense}" for name, now, dense in zip(names, kept, before, strict=True)]
    return drawing(TOP + len(names) * ROW, f"{title_of_all} left of each {what}", values, *parts)
