"""Numbers as people write them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from slimvox.errors import SlimvoxError

_SUFFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}
_AMOUNT = re.compile(r"^\s*(\d+(?:\.\d*)?|\.\d+)\s*([kmgb%]?)\s*$", re.IGNORECASE)
_SPEED = re.compile(r"^\s*(\d+(?:\.\d*)?|\.\d+)\s*x?\s*$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Amount:
    """A share of something, or a number of things."""

    value: float
    is_share: bool

    def of(self, whole: float) -> float:
        """The absolute number, given what the share is of."""
        return self.value * whole if self.is_share else self.value


def parse_amount(text: str, name: str) -> Amount:
    """`28%` and `0.28` as shares, `26.5M` and `26500000` as numbers.

    Raises:
        SlimvoxError: if it is neither; `name` is what the message calls it.
    """
    match = _AMOUNT.match(text)
    if match is None or float(match[1]) == 0:
        raise SlimvoxError(
            f"`{name}` must be a share such as 28% or a number such as 26.5M, but is {text!r} instead"
        )
    number, suffix = float(match[1]), match[2].lower()
    if suffix == "%":
        return Amount(value=number / 100, is_share=True)
    if not suffix and number < 1:
        return Amount(value=number, is_share=True)
    return Amount(value=number * _SUFFIXES[suffix], is_share=False)


def parse_speed(text: str, name: str) -> float:
    """`4x`, `4` and `2.5x` as numbers above 1.

    Raises:
        SlimvoxError: if it is nothing of the kind; `name` is what the message calls it.
    """
    match = _SPEED.match(text)
    if match is None or float(match[1]) <= 1:
        raise SlimvoxError(f"`{name}` must be a speed-up above 1, such as 4x, but is {text!r} instead")
    return float(match[1])


def short_number(number: float) -> str:
    """1_234_567 as '1.23M': three digits and a suffix."""
    for power, suffix in ((9, "G"), (6, "M"), (3, "k")):
        scaled = number / 10**power
        if abs(scaled) >= 1:
            return f"{scaled:.{max(0, 2 - int(math.log10(abs(scaled))))}f}{suffix}"
    return f"{number:.0f}"
