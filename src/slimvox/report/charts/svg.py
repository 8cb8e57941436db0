"""SVG elements, panels and axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH = 360
"""Width of every chart in its own units; a panel is about as many pixels wide, so text keeps its size on a phone."""
SERIES = 6
"""Colours of the style sheet for series, `c0` to `c5`; after those they start again, with dashes."""

Value = str | float | int


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A chart with its title."""

    title: str
    chart: Markup
    note: str = ""
    """A sentence below the chart."""


def element(name: str, *children: str, **attributes: Value) -> Markup:
    """An element; `class_` stands for `class`, and `_` for `-` in other names."""
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(number(value))}"' for key, value in attributes.items()
    )
    inside = Markup("").join(children)
    return Markup(f"<{name}{pairs}>{inside}</{name}>") if inside else Markup(f"<{name}{pairs}/>")


def drawing(height: float, label: str, values: Sequence[str], *children: str) -> Markup:
    """A chart `WIDTH` wide, with its text alternative: `label`, and the values that it shows."""
    alternative = f"{label}: {'; '.join(values)}"
    return element(
        "svg", *children, viewBox=f"0 0 {WIDTH} {number(height)}", role="img", aria_label=alternative
    )


def text(x: float, y: float, content: str, class_: str = "", anchor: str = "start") -> Markup:
    """A line of text."""
    attributes: dict[str, Value] = {"x": x, "y": y}
    if anchor != "start":
        attributes["text_anchor"] = anchor
    if class_:
        attributes["class_"] = class_
    return element("text", content, **attributes)


def shortened(label: str, length: int) -> str:
    """The end of a label (labels differ at the end more often than at the beginning), with dots if it is cut."""
    return label if len(label) <= length else "…" + label[1 - length :]


def number(value: Value) -> str:
    """A coordinate, to a hundredth; text as it is."""
    if isinstance(value, str):
        return value
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def series_class(index: int) -> str:
    """Classes that give a series its colour, and dashes where colours have run out."""
    return f"c{index % SERIES}" + (f" dash{min(index // SERIES, 2)}" if index >= SERIES else "")


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers from `low` to `high`, about `count` of them."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(each * power for each in (1, 2, 5, 10) if each * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def tick_label(value: float, values: Sequence[float]) -> str:
    """The label of a tick, with as many digits as needed to distinguish it from its neighbours."""
    largest = max(map(abs, values), default=0.0)
    if largest >= 10_000:
        return f"{value / 1000:g}k"
    if value == 0 or abs(value) < 1e-9 * largest:
        return "0"
    if largest < 0.0005:
        return f"{value:.1e}".replace("e-0", "e-").replace(".0e", "e")
    return f"{value:.10g}".replace("-", "−")  # noqa: RUF001
