"""What is left of an encoder: heat maps of its heads, bars of its widths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from markupsafe import Markup

from slimvox.anatomy import EncoderAnatomy, LayerAnatomy
from slimvox.report.charts.svg import WIDTH, Panel, drawing, element, text

LEFT, ROW, TOP = 34, 22, 18
STRONG = 0.62
"""Cells that are filled more than this have their number in the light colour."""

Dimension = Literal["qk", "vo"]


def anatomy_panels(anatomy: EncoderAnatomy, dense: EncoderAnatomy) -> tuple[Panel, Panel, Panel, Panel]:
    """Queries and keys, values and outputs, feed-forward widths, channels of the front end."""
    return (
        Panel(title="Queries and keys", chart=_head_map(anatomy, dense, "qk")),
        Panel(title="Values and outputs", chart=_head_map(anatomy, dense, "vo")),
        Panel(
            title="Feed-forward width",
            chart=_bars(
                [str(number + 1) for number in range(len(anatomy.layers))],
                [layer.intermediate for layer in anatomy.layers],
                [layer.intermediate for layer in dense.layers],
                "layer",
            ),
        ),
        Panel(
            title="Front-end channels",
            chart=_bars(
                [str(number + 1) for number in range(len(anatomy.convolutions))],
                [convolution.channels for convolution in anatomy.convolutions],
                [convolution.channels for convolution in dense.convolutions],
                "convolution",
            ),
        ),
    )


def _head_map(anatomy: EncoderAnatomy, dense: EncoderAnatomy, dimension: Dimension) -> Markup:
    """Layers down, heads across; how dark a cell is, is the share of the dimensions that is left."""
    heads = dense.attention_heads
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
    for index, (layer, before) in enumerate(zip(anatomy.layers, dense.layers, strict=True)):
        y = TOP + index * ROW
        parts.append(text(LEFT - 6, y + ROW / 2 + 4, str(index + 1), "axis", "end"))
        parts += _row(layer, before, index, y, cell, dimension)
    what = {"qk": "query and key", "vo": "value"}[dimension]
    return drawing(
        TOP + len(anatomy.layers) * ROW, f"{what} dimensions left of each head of each layer", *parts
    )


def _row(
    layer: LayerAnatomy, before: LayerAnatomy, index: int, y: float, cell: float, dimension: Dimension
) -> list[Markup]:
    now = {head.index: getattr(head, dimension) for head in layer.heads}
    parts = []
    for head in before.heads:
        width, kept = getattr(head, dimension), now.get(head.index)
        x, share = LEFT + head.index * cell, (kept or 0) / max(1, getattr(head, dimension))
        box = {"x": x + 1, "y": y + 1, "width": cell - 2, "height": ROW - 2, "rx": 2}
        state = "gone" if kept is None else f"{kept} of {width}"
        title = element("title", f"layer {index + 1}, head {head.index + 1}: {state}")
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


def _bars(names: Sequence[str], kept: Sequence[int], before: Sequence[int], what: str) -> Markup:
    """A bar for each, in a frame as long as the dense one (the longest frame is the whole width)."""
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
    return drawing(TOP + len(names) * ROW, f"{what}s and what is left of their width", *parts)
