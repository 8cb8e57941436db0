"""Batches of features for heads, and the order of the items in them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from slimvox.evaluation.features import Features

Target = TypeVar("Target")
BATCHES_PER_POOL = 8
"""Number of batches in a pool, which is sorted by length before it is cut into batches, to reduce padding."""


@dataclass(frozen=True, kw_only=True)
class Item(Generic[Target]):
    """One example of a task, ready for its head."""

    id: str
    """Identifier of the recording."""
    target: Target
    sources: tuple[str, ...] = ()
    """Speakers, or the recording itself, see `outcomes.Outcomes`; needed in test only."""


@dataclass(frozen=True, kw_only=True)
class Batch(Generic[Target]):
    """Some items with their features."""

    features: Tensor
    """(batch, frames, layers, width) float32, zero-padded; on the features' device."""
    lengths: Tensor
    """(batch,) frames that count; on the same device."""
    targets: tuple[Target, ...]
    bf16: bool = False
    """True if heads compute in bfloat16."""

    def through(self, head: nn.Module) -> Any:
        """Output of a head for the batch; always in float32."""
        with torch.autocast(self.features.device.type, torch.bfloat16, enabled=self.bf16):
            output = head(self.features, self.lengths)
        if isinstance(output, Tensor):
            return output.float()
        return type(output)(each.float() if each.is_floating_point() else each for each in output)


def make_batch(
    features: Features, items: Sequence[Item[Target]], states: Sequence[Tensor] | None = None
) -> Batch[Target]:
    """Collect the features of the items, or use those that were read.

    In memory the layers come first, so that heads mix them in one pass over each (see `heads.WeightedSum`).
    """
    parts = next(features.read([[item.id for item in items]])) if states is None else states
    lengths = [len(each) for each in parts]
    shape = (features.layers, len(items), max(lengths), features.width)
    by_layer = torch.zeros(shape, device=parts[0].device)
    for row, (each, length) in enumerate(zip(parts, lengths, strict=True)):
        by_layer[:, row, :length] = each.transpose(0, 1)
    return Batch(
        features=by_layer.to(features.device).permute(1, 2, 0, 3),
        lengths=torch.tensor(lengths, device=features.device),
        targets=tuple(item.target for item in items),
        bf16=features.bf16,
    )


def batches_of(
    features: Features, chosen: Iterator[Sequence[Item[Target]]]
) -> Generator[Batch[Target], None, None]:
    """Batches of items; features that are streamed are decoded ahead."""
    waiting: deque[Sequence[Item[Target]]] = deque()

    def ids() -> Iterator[list[str]]:
        for items in chosen:
            waiting.append(items)
            yield [item.id for item in items]

    with closing(features.read(ids())) as read:
        for states in read:
            yield make_batch(features, waiting.popleft(), states)


def endless_order(
    features: Features,
    items: Sequence[Item[Target]],
    size: int,
    generator: torch.Generator,
    class_of: Callable[[Target], object] | None,
) -> Iterator[list[int]]:
    """Indices of the items of batch after batch."""
    weights = None
    if class_of is not None:
        counts = Counter(class_of(item.target) for item in items)
        weights = torch.tensor([1.0 / counts[class_of(item.target)] for item in items], device="cpu")
    waiting: deque[int] = deque()
    while True:
        while len(waiting) < size * BATCHES_PER_POOL:
            if weights is None:
                waiting += torch.randperm(len(items), generator=generator, device="cpu").tolist()
            else:
                waiting += torch.multinomial(weights, len(items), True, generator=generator).tolist()
        pool = [waiting.popleft() for _ in range(size * BATCHES_PER_POOL)]
        pool.sort(key=lambda index: features.frames(items[index].id))
        for number in torch.randperm(BATCHES_PER_POOL, generator=generator, device="cpu").tolist():
            yield pool[number * size : (number + 1) * size]
