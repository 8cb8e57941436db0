"""Padding with zeros, where a negative amount crops, in two forms for runtimes that differ in what they can do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch.nn.functional as F
from torch import Tensor

_SLICES = ContextVar("slices", default=False)


@contextmanager
def crops_as_slices() -> Iterator[None]:
    """Context in which `pad` slices where amounts are negative, for runtimes without negative padding."""
    token = _SLICES.set(True)
    try:
        yield
    finally:
        _SLICES.reset(token)


def pad(x: Tensor, amounts: Sequence[int]) -> Tensor:
    """`F.pad`, from the last axis backwards: zeros before and after, or if negative that many values fewer.

    By default it does not slice: `torch.export` treats the size of a slice as unknown, and fails where such a size is
    compared with 1, as the number of heads is.
    """
    if not _SLICES.get():
        return F.pad(x, list(amounts))
    for place in range(len(amounts) // 2):
        axis = x.ndim - 1 - place
        before, after = amounts[2 * place], amounts[2 * place + 1]
        start, stop = max(0, -before), x.shape[axis] + (0 if after > 0 else after)
        x = x[(slice(None),) * axis + (slice(start, stop),)]
        if before > 0 or after > 0:
            x = F.pad(x, [0, 0] * place + [max(0, before), after if after > 0 else 0])
    return x
