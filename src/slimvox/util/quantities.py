"""Parsing and formatting of quantities, such as `28%`, `26.5M` and `4x`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from slimvox.util.errors import SlimvoxError

_SUFFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}
_LARGEST = 1e15
"""Maximum number; larger ones are typing errors, and could become infinite with a suffix."""
_NUMBER = r"^\s*((?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?)\s*"
"""A number, also with an exponent: Python prints 0.00001 as 1e-05."""
_AMOUNT = re.compile(_NUMBER + r"([kmgb%]?)\s*$", re.IGNORECASE)
_SPEED = re.compile(_NUMBER + r"x?\s*$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Amount:
    """A share of something, or a number of things."""

    value: float
    is_share: bool

    def of(self, whole: float) -> float:
        """The absolute number; a share is multiplied by the whole."""
        return self.value * whole if self.is_share else self.value


def parse_amount(text: str, name: str) -> Amount:
    """Parse `28%` and `0.28` as shares, `26.5M` and `26500000` as numbers.

    Raises:
        SlimvoxError: if it is neither; `name` is its name in the message.
    """
    match = _AMOUNT.match(text)
    if match is None or not 0 < float(match[1]) < _LARGEST:
        raise SlimvoxError(
            f"`{name}` must be a share such as 28% or a number such as 26.5M, but is {text!r} instead"
        )
    number, suffix = float(match[1]), match[2].lower()
    if suffix == "%":
        return Amount(value=number / 100, is_share=True)
    if not suffix and number < 1:
        return Amount(value=number, is_share=True)
    return Amount(value=number * _SUFFIXES[suffix], is_share=False)


def parse_shares(texts: Sequence[str], name: str) -> tuple[float, ...]:
    """Parse shares such as `50%` and `0.5` as numbers between 0 and 1, largest first.

    Raises:
        SlimvoxError: if there are none, one is not a share, or one occurs twice; `name` is their name in the message.
    """
    shares = []
    for text in texts:
        match = _AMOUNT.match(text)
        share = float(match[1]) / (100 if match[2] == "%" else 1) if match and match[2] in ("", "%") else 0.0
        if not 0 < share < 1:
            raise SlimvoxError(
                f"`{name}` must be shares between 0 and 100%, such as 50%,28%, but has {text!r} in it"
            )
        shares.append(share)
    if not shares:
        raise SlimvoxError(f"`{name}` must be shares such as 50%,28%, but is empty instead")
    for share in shares:
        if [share_name(each) for each in shares].count(share_name(share)) > 1:
            raise SlimvoxError(f"`{name}` has {share_name(share)}% in it more than once")
    return tuple(sorted(shares, reverse=True))


def share_name(share: float) -> str:
    """Format a share as percent without its sign: 0.125 as '12.5'."""
    return f"{100 * share:g}"


def parse_speed(text: str, name: str) -> float:
    """Parse `4x`, `4` and `2.5x` as numbers above 1.

    Raises:
        SlimvoxError: if it is not such a number; `name` is its name in the message.
    """
    match = _SPEED.match(text)
    if match is None or not 1 < float(match[1]) < _LARGEST:
        raise SlimvoxError(f"`{name}` must be a speed-up above 1, such as 4x, but is {text!r} instead")
    return float(match[1])


def short_number(number: float) -> str:
    """Format a number with three digits and a suffix: 1_234_567 as '1.23M'."""
    for power, suffix in ((9, "G"), (6, "M"), (3, "k")):
        scaled = number / 10**power
        if abs(scaled) >= 1:
            return f"{scaled:.{max(0, 2 - int(math.log10(abs(scaled))))}f}{suffix}"
    return f"{number:.0f}"
