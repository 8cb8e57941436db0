"""Times of encoders that take turns with the dense encoder, so that changes of the machine's speed cancel out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from slimvox.util.timing import relative_times

BESIDE_DENSE = 4
"""Number of encoders that are timed after each call of the dense one. With many more in turns, torch's cache of oneDNN
kernels overflows."""
Timed = TypeVar("Timed")


@dataclass(frozen=True, kw_only=True)
class TimesBesideDense:
    """Times of encoders, in the unit of the clock that measured them."""

    dense: float
    """Median time of the dense encoder over all rounds of all sessions."""
    others: dict[str, float]
    """Times of the other encoders by name: the ratio to the dense encoder (`relative_times`), times its time."""


def times_beside_dense(
    dense: Timed,
    sessions: Iterable[Mapping[str, Timed]],
    clock: Callable[[Mapping[str, Timed]], Mapping[str, Sequence[float]]],
) -> TimesBesideDense:
    """Time the dense encoder before every `BESIDE_DENSE` others, so that each is compared with it at one moment.

    Args:
        dense: the dense encoder, or a call of it: anything that `clock` times.
        sessions: the other encoders by name, in sessions; those of one session take turns. A session is asked for when
            the one before is over, so that its encoders need not exist earlier.
        clock: times what it is given in turns, and returns the times of every round by name. The dense encoder is among
            them once for every `BESIDE_DENSE` others, under the names `dense 0`, `dense 1` and so on.

    Returns:
        The time of each encoder.
    """
    dense_times: list[float] = []
    ratios: dict[str, float] = {}
    for session in sessions:
        groups = {f"dense {number}": group for number, group in enumerate(groups_beside_dense(list(session)))}
        in_turns: dict[str, Timed] = {}
        for beside, group in groups.items():
            in_turns[beside] = dense
            in_turns |= {name: session[name] for name in group}
        times = clock(in_turns)
        for beside, group in groups.items():
            relative = relative_times({name: times[name] for name in (beside, *group)}, beside)
            ratios |= {name: relative[name] for name in group}
            dense_times += times[beside]
    of_dense = median(dense_times)
    return TimesBesideDense(dense=of_dense, others={name: of_dense * each for name, each in ratios.items()})


def groups_beside_dense(items: Sequence[Timed]) -> Iterator[Sequence[Timed]]:
    """Divide items into groups of up to `BESIDE_DENSE`, in order: sessions with a single call of the dense encoder."""
    return (items[start : start + BESIDE_DENSE] for start in range(0, len(items), BESIDE_DENSE))
