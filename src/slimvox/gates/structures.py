"""Which structures can be gated."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

Structure = Literal["conv", "attention", "feed_forward", "head", "qk", "vo", "intermediate"]
STRUCTURES: tuple[Structure, ...] = get_args(Structure)


@dataclass(frozen=True, kw_only=True)
class Structures:
    """A switch per kind of structure."""

    conv: bool = False
    """Channels of each convolution of the front end."""
    attention: bool = True
    """Whole attention blocks."""
    feed_forward: bool = True
    """Whole feed-forward blocks."""
    head: bool = True
    """Whole attention heads."""
    qk: bool = True
    """Dimensions of a head's queries and keys."""
    vo: bool = True
    """Dimensions of a head's values and outputs."""
    intermediate: bool = True
    """Dimensions between the two maps of a feed-forward block."""

    def enabled(self) -> frozenset[Structure]:
        """Those that are switched on."""
        return frozenset(name for name in STRUCTURES if getattr(self, name))


assert tuple(field.name for field in fields(Structures)) == STRUCTURES
