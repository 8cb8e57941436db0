"""Style of the figures, and their conversion to files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#5a6470", "#8c510a")
"""Colours that colour-blind readers can distinguish; the first eight lines also differ by their `MARKERS`."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
GREY = "#6b7480"
DOTS_PER_INCH = 160
SETTINGS: Any = {
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e6ea",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.hashsalt": "slimvox",
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
}


def colour_and_marker(index: int) -> tuple[str, str]:
    """Colour and marker of a line; no two of the first 64 lines have both in common."""
    shift, colour = divmod(index, len(COLOURS))
    return COLOURS[colour], MARKERS[(colour + shift) % len(MARKERS)]


@contextmanager
def style() -> Iterator[None]:
    """Context in which figures are drawn in slimvox's style."""
    import matplotlib

    with matplotlib.rc_context(SETTINGS):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, with sizes in inches, that is not registered with any window or backend."""
    from matplotlib.figure import Figure as NewFigure

    return NewFigure(figsize=(width, height))


def rendered(figure: Figure) -> dict[str, bytes]:
    """The contents of the files of a figure, by suffix; the same figure always gives the same bytes."""
    files = {}
    for suffix, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
        content = io.BytesIO()
        figure.savefig(content, format=suffix, dpi=DOTS_PER_INCH, metadata=metadata)
        files[suffix] = content.getvalue()
    return files


def panel_letter(axes: Axes, letter: str, title: str) -> None:
    """Title a panel."""
    axes.set_title(f"({letter}) {title}", loc="left")
