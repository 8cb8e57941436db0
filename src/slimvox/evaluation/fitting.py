"""Training a head on cached features: batches, the loop, and the choice of the learning rate on dev."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from slimvox.evaluation.features import Features
from slimvox.evaluation.protocols import HeadProtocol
from slimvox.util.devices import seeded
from slimvox.util.errors import SlimvoxError

logger = logging.getLogger("slimvox.evaluation")

Target = TypeVar("Target")
BATCHES_PER_POOL = 8
"""Batches are cut from pools of so many, sorted by length, so that there is little padding."""


@dataclass(frozen=True, kw_only=True)
class Item(Generic[Target]):
    """One example of a task, ready for its head."""

    id: str
    """Identifier of the recording."""
    target: Target


@dataclass(frozen=True, kw_only=True)
class Batch(Generic[Target]):
    """Some items with their features."""

    features: Tensor
    """(batch, frames, layers, width) float32, zero-padded; on the features' device."""
    lengths: Tensor
    """(batch,) frames that count; on the same device."""
    targets: tuple[Target, ...]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A trained head."""

    head: nn.Module
    """Head in its best state on dev, in evaluation mode."""
    learning_rate: float
    dev_score: float
    """Higher is better; -inf where training diverged: most gradients were not finite, or all scores."""
    best_step: int
    seconds: float


def make_batch(features: Features, items: Sequence[Item[Target]]) -> Batch[Target]:
    """Collect the items' features.

    In memory the layers come first, so that heads mix them in one pass over each (see `heads.WeightedSum`).
    """
    lengths = [features.frames(item.id) for item in items]
    by_layer = torch.zeros(features.layers, len(items), max(lengths), features.width, device="cpu")
    for row, (item, length) in enumerate(zip(items, lengths, strict=True)):
        by_layer[:, row, :length] = features.get(item.id).transpose(0, 1)
    return Batch(
        features=by_layer.to(features.device).permute(1, 2, 0, 3),
        lengths=torch.tensor(lengths, device=features.device),
        targets=tuple(item.target for item in items),
    )


def in_order(
    features: Features, items: Sequence[Item[Target]], size: int
) -> Iterator[tuple[list[int], Batch[Target]]]:
    """All items once, those of about the same length together, with their indices in `items`."""
    order = sorted(range(len(items)), key=lambda index: features.frames(items[index].id))
    for first in range(0, len(order), size):
        chosen = order[first : first + size]
        yield chosen, make_batch(features, [items[index] for index in chosen])


def endless(
    features: Features,
    items: Sequence[Item[Target]],
    size: int,
    generator: torch.Generator,
    class_of: Callable[[Target], object] | None = None,
) -> Iterator[Batch[Target]]:
    """Training batches without end.

    Args:
        features: of all items.
        items: what to draw from.
        size: items per batch.
        generator: of the order.
        class_of: where classes are to be drawn equally often, an item's class.
    """
    weights = None
    if class_of is not None:
        counts = Counter(class_of(item.target) for item in items)
        weights = torch.tensor([1.0 / counts[class_of(item.target)] for item in items], device="cpu")
    waiting: list[int] = []
    while True:
        while len(waiting) < size * BATCHES_PER_POOL:
            if weights is None:
                waiting += torch.randperm(len(items), generator=generator, device="cpu").tolist()
            else:
                waiting += torch.multinomial(weights, len(items), True, generator=generator).tolist()
        pool, waiting = waiting[: size * BATCHES_PER_POOL], waiting[size * BATCHES_PER_POOL :]
        pool.sort(key=lambda index: features.frames(items[index].id))
        for number in torch.randperm(BATCHES_PER_POOL, generator=generator, device="cpu").tolist():
            yield make_batch(features, [items[i] for i in pool[number * size : (number + 1) * size]])


def fit(
    *,
    build: Callable[[], nn.Module],
    batches: Callable[[torch.Generator], Iterator[Batch[Target]]],
    loss: Callable[[nn.Module, Batch[Target]], Tensor],
    dev_score: Callable[[nn.Module], float],
    protocol: HeadProtocol,
    learning_rate: float,
    seed: int,
    device: torch.device,
) -> Fit:
    """Train a head at one learning rate; the state that scores best on dev is kept.

    torch's global random state is afterwards as it was.

    Args:
        build: makes the head, from torch's global random state.
        batches: endless training batches.
        loss: mean loss of a batch.
        dev_score: of a head in evaluation mode, higher is better.
        protocol: optimiser, steps and the like.
        learning_rate: the first one.
        seed: random seed for the head's weights, the batches and the dropout.
        device: where to train; the first weights are the same on every device.
    """
    with seeded(seed):
        return _fit(build, batches, loss, dev_score, protocol, learning_rate, seed, device)


def _fit(
    build: Callable[[], nn.Module],
    batches: Callable[[torch.Generator], Iterator[Batch[Target]]],
    loss: Callable[[nn.Module, Batch[Target]], Tensor],
    dev_score: Callable[[nn.Module], float],
    protocol: HeadProtocol,
    learning_rate: float,
    seed: int,
    device: torch.device,
) -> Fit:
    started = time.perf_counter()
    with torch.device("cpu"):
        head = build()
    head.to(device)
    stream = batches(torch.Generator().manual_seed(seed))
    kind = torch.optim.Adam if protocol.optimiser == "adam" else torch.optim.AdamW
    optimiser = kind(head.parameters(), lr=learning_rate)
    evaluations = min(protocol.evaluations, protocol.steps)
    due = {round(protocol.steps * (i + 1) / evaluations) for i in range(evaluations)}
    lost = 0
    best, best_step, best_state = -math.inf, 0, copy.deepcopy(head.state_dict())
    for step in range(1, protocol.steps + 1):
        if protocol.schedule == "linear":
            for group in optimiser.param_groups:
                group["lr"] = learning_rate * (1 - (step - 1) / protocol.steps)
        head.train()
        for _ in range(protocol.accumulation):
            value = loss(head, next(stream)) / protocol.accumulation
            value.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(head.parameters(), protocol.gradient_clip)
        if torch.isfinite(norm):
            optimiser.step()
        else:
            lost += 1
        optimiser.zero_grad()
        if step in due:
            head.eval()
            with torch.inference_mode():
                score = dev_score(head)
            if math.isfinite(score) and score > best:
                best, best_step, best_state = score, step, copy.deepcopy(head.state_dict())
    if lost > protocol.steps // 2:
        best = -math.inf
    head.load_state_dict(best_state)
    return Fit(
        head=head.eval(),
        learning_rate=learning_rate,
        dev_score=best,
        best_step=best_step,
        seconds=time.perf_counter() - started,
    )


def sweep(fit_at: Callable[[float, int], Fit], rates: Sequence[float], seeds: int, task: str) -> Sweep:
    """Try each learning rate with the first seed, then train the other seeds at the best one.

    Args:
        fit_at: trains at a learning rate from a seed.
        rates: the grid.
        seeds: how many heads to train at the best rate.
        task: for messages.

    Raises:
        SlimvoxError: if no learning rate gives a usable head.
    """
    tried = [fit_at(rate, 0) for rate in rates]
    best = max(tried, key=lambda each: each.dev_score)
    if not math.isfinite(best.dev_score):
        raise SlimvoxError(f"{task}: the head diverged at every learning rate; try smaller ones")
    if len(rates) > 1 and best.learning_rate in (min(rates), max(rates)):
        logger.info("%s: the best learning rate, %g, is at the edge of the grid", task, best.learning_rate)
    others = [fit_at(best.learning_rate, seed) for seed in range(1, seeds)]
    return Sweep(
        dev_scores={each.learning_rate: each.dev_score for each in tried},
        fits=(best, *others),
        seconds=sum(each.seconds for each in (*tried, *others)),
    )


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Heads of several seeds at the learning rate that was best on dev."""

    dev_scores: dict[float, float]
    """Score on dev by learning rate, for seed 0; higher is better."""
    fits: tuple[Fit, ...]
    """One per seed."""
    seconds: float
