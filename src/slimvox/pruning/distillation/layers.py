"""Which hidden states are compared."""

from __future__ import annotations

from collections.abc import Sequence


def distilled_layers(layers: int, count: int = 4) -> tuple[int, ...]:
    """Indices of the hidden states to compare: evenly spaced, the first and the last included.

    {0, 4, 8, 12} of 12 layers, {0, 8, 16, 24} of 24.
    """
    count = min(count, layers + 1)
    if count == 1:
        return (layers,)
    return tuple(dict.fromkeys(round(index * layers / (count - 1)) for index in range(count)))


def layer_groups(chosen: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Neighbouring hidden states, each group up to a chosen one: {0}, {1 to 4}, {5 to 8}, {9 to 12} for {0, 4, 8, 12}.

    Neighbours in depth are the most similar states; their mean is a target that no single layer has to carry.
    """
    starts = [chosen[0], *(previous + 1 for previous in chosen)]
    return tuple(tuple(range(start, stop + 1)) for start, stop in zip(starts, chosen, strict=False))
