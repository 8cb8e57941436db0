"""Weighted mixes of sources: `libri/:1 arabic/:0.3`."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from typing import Any

from slimvox.audio.remote import is_remote
from slimvox.util.errors import SlimvoxError

_WEIGHT = re.compile(r"(?P<source>.+):(?P<weight>[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan|inf)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class WeightedAudio:
    """A source of audio, and its share in a mix."""

    source: Any
    """Source, as for `slimvox.audio.find_audio`."""
    weight: float
    """Share of the seconds that are drawn, relative to the weights of the other sources."""

    def __post_init__(self) -> None:
        is_number = isinstance(self.weight, (int, float)) and not isinstance(self.weight, bool)
        if not is_number or not 0.0 < self.weight < math.inf:
            raise SlimvoxError(
                f"The weight of `{self.source}` must be a number above 0, but is {self.weight} instead: give it a "
                "positive weight, or leave it out."
            )


def unweighted(source: Any) -> tuple[Any, float | None]:
    """Split a source into the source and its weight; None if it has no weight.

    In text, a weight is a number after the last colon, such as `libri/:0.3`, unless a file has that name. After a data
    set of the hub, configuration and split come first: `hf:NAME:CONFIGURATION:SPLIT:0.3`, and both may be empty.

    Raises:
        SlimvoxError: the weight is not above 0.
    """
    if isinstance(source, WeightedAudio):
        return source.source, source.weight
    if not isinstance(source, str) or (found := _WEIGHT.fullmatch(source)) is None or os.path.exists(source):
        return source, None
    name = found["source"]
    if name.startswith("hf:") and name.count(":") < 3:
        return source, None
    if is_remote(name) and "/" not in name.partition("://")[2]:
        return source, None
    return WeightedAudio(name, float(found["weight"])).source, float(found["weight"])
