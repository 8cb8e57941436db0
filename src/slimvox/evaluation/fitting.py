"""Training heads on features: the loop, and the choice of the learning rate on dev."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Generic

import torch
from torch import Tensor, nn

from slimvox.evaluation.batches import Batch, Item, Target, batches_of, endless_order, make_batch
from slimvox.evaluation.features import Features
from slimvox.evaluation.protocols import HeadProtocol
from slimvox.util.devices import seeded
from slimvox.util.errors import SlimvoxError

logger = logging.getLogger("slimvox.evaluation")


@dataclass(frozen=True, kw_only=True)
class Training(Generic[Target]):
    """A task's data and its head, ready to be trained."""

    features: Features
    items: Mapping[str, Sequence[Item[Target]]]
    """Items by split."""
    protocol: HeadProtocol
    build: Callable[[], nn.Module]
    """Function that builds the head, with torch's global random state."""
    loss: Callable[[nn.Module, Batch[Target]], Tensor]
    """Function for the mean loss of a batch."""
    read: Callable[[nn.Module, Batch[Target]], Sequence[Any]]
    """A head's output for each item of a batch: classes, symbols or an embedding."""
    dev_score: Callable[[Sequence[Any]], float]
    """Score of the outputs for the items of dev, in their order; higher is better."""
    dev_metric: tuple[str, float] = ("score", 1.0)
    """Name and factor by which `dev_score` is reported."""
    class_of: Callable[[Target], object] | None = None
    """Function for the class of an item, if classes are to be drawn equally often in training."""
    counts: Mapping[str, int]
    """Examples used, by split."""
    skipped: Mapping[str, int]
    """Examples left out, by reason."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Further facts about the data, for the result."""
    items_at_once: int | None = None
    """Items per batch in evaluation; by default as in training."""

    def batches(self, generator: torch.Generator) -> Generator[Batch[Target], None, None]:
        """Training batches without end."""
        items, size = self.items["train"], self.protocol.batch
        order = endless_order(self.features, items, size, generator, self.class_of)
        return batches_of(self.features, ([items[index] for index in chosen] for chosen in order))

    @torch.inference_mode()
    def outputs(self, heads: Sequence[nn.Module], split: str) -> list[list[Any]]:
        """Output of each head for each item of a split; the features are read once for all heads."""
        items = self.items[split]
        order = sorted(range(len(items)), key=lambda index: self.features.frames(items[index].id))
        size = self.items_at_once or self.protocol.batch
        chunks = [order[first : first + size] for first in range(0, len(order), size)]
        found: list[list[Any]] = [[None] * len(items) for _ in heads]
        batches = batches_of(self.features, ([items[index] for index in chunk] for chunk in chunks))
        for chunk, batch in zip(chunks, batches, strict=True):
            for head, own in zip(heads, found, strict=True):
                for index, output in zip(chunk, self.read(head, batch), strict=True):
                    own[index] = output
        return found


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A trained head."""

    head: nn.Module
    """Head in its best state on dev, in evaluation mode."""
    learning_rate: float
    dev_score: float
    """Best score on dev; -inf if training diverged, that is, if most gradients or all scores were not finite."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Heads of several seeds at the learning rate that was best on dev."""

    dev_scores: dict[float, float]
    """Score on dev by learning rate, for seed 0; higher is better. Minus infinity where the head diverged."""
    fits: tuple[Fit, ...]
    """Trained heads, one per seed."""


def fit(training: Training[Any], rates: Sequence[float], seed: int) -> list[Fit]:
    """Train a head at each learning rate; the state that scores best on dev is kept.

    All heads see the same batches, so features that are streamed are encoded once for all of them. Each has a random
    state of its own, so that its result is the same as if it were trained alone. torch's global random state is
    restored afterwards.

    Args:
        training: data and head.
        rates: learning rates; the first ones, where the protocol lets them fall.
        seed: random seed for the head's weights, the batches and the dropout.
    """
    protocol = training.protocol
    evaluations = min(protocol.evaluations, protocol.steps)
    due = {round(protocol.steps * (i + 1) / evaluations) for i in range(evaluations)}
    with seeded(seed), closing(training.batches(torch.Generator().manual_seed(seed))) as batches:
        heads = [_Head(training, rate, seed) for rate in rates]
        for step in range(1, protocol.steps + 1):
            for _ in range(protocol.accumulation):
                batch = next(batches)
                for head in heads:
                    head.learn(batch)
            for head in heads:
                head.step(step)
            if step in due:
                outputs = training.outputs([head.module.eval() for head in heads], "dev")
                for head, own in zip(heads, outputs, strict=True):
                    head.judge(training.dev_score(own))
    return [head.finished() for head in heads]


def sweep(
    fit_at: Callable[[Sequence[float], int], list[Fit]], rates: Sequence[float], seeds: int, task: str
) -> Sweep:
    """Try each learning rate with the first seed, then train the other seeds at the best one.

    Args:
        fit_at: trains a head at each of some learning rates, from a seed.
        rates: grid of learning rates.
        seeds: number of heads to train at the best rate.
        task: name of the task, for messages.

    Raises:
        SlimvoxError: if no learning rate gives a usable head.
    """
    tried = fit_at(rates, 0)
    best = max(tried, key=lambda each: each.dev_score)
    if not math.isfinite(best.dev_score):
        raise SlimvoxError(f"{task}: the head diverged at every learning rate; try smaller ones")
    if len(rates) > 1 and best.learning_rate in (min(rates), max(rates)):
        logger.info("%s: the best learning rate, %g, is at the edge of the grid", task, best.learning_rate)
    others = [fit_at((best.learning_rate,), seed)[0] for seed in range(1, seeds)]
    dev_scores = {each.learning_rate: each.dev_score for each in tried}
    return Sweep(dev_scores=dev_scores, fits=(best, *others))


@dataclass(frozen=True, kw_only=True)
class TrainingProbe:
    """Times of a head on this machine, measured on a few items."""

    batch_seconds: float
    """Time for the gradients of a training batch."""
    update_seconds: float
    """Part of a step's time that does not depend on the batch."""
    read_seconds: float
    """Time for the result of an item."""

    @staticmethod
    def measure(training: Training[Any], *, seconds: float) -> TrainingProbe:
        """Train a head for a few steps, on batches that grow while time is left, and compute results for a batch.

        A batch that did not fit into the time is extrapolated: the time grows by as much per item.
        """
        size, order = (
            training.protocol.batch,
            sorted(training.items["train"], key=lambda item: training.features.frames(item.id)),
        )
        mean = sum(training.features.frames(item.id) for item in order) / len(order)
        middle = sum(training.features.frames(item.id) <= mean for item in order)
        first = max(0, min(middle - size // 2, len(order) - size))
        some = [order[(first + number) % len(order)] for number in range(size)]
        times: dict[int, float] = {}
        ends, count, warm = time.perf_counter() + seconds, 1, False
        with seeded(0):
            head = _Head(training, training.protocol.learning_rates[-1], 0)
            while True:
                started = time.perf_counter()
                batch = make_batch(training.features, some[:count])
                head.learn(batch)
                head.step(1)  # checks that the gradients are finite: a GPU is done
                taken = time.perf_counter() - started
                if warm:
                    times[count] = taken
                    if count == size or time.perf_counter() + 3 * taken > ends:
                        break
                    count = min(size, 2 * count)
                warm = True
            started = time.perf_counter()
            with torch.inference_mode():
                training.read(head.module.eval(), batch)
            read_seconds = (time.perf_counter() - started) / count
        few, many = min(times), max(times)
        per_item = (times[many] - times[few]) / (many - few) if many > few else times[many]
        per_item = max(per_item, 0.0)
        update = max(0.0, times[many] - many * per_item)
        return TrainingProbe(batch_seconds=size * per_item, update_seconds=update, read_seconds=read_seconds)

    def total_seconds(self, training: Training[Any]) -> float:
        """Time of training one head and of scoring it."""
        protocol, counts = training.protocol, {name: len(items) for name, items in training.items.items()}
        step = protocol.accumulation * self.batch_seconds + self.update_seconds
        read = protocol.evaluations * counts["dev"] + counts["test"]
        return protocol.steps * step + read * self.read_seconds


class _Head:
    """A head in training, with its optimiser and its random state."""

    def __init__(self, training: Training[Any], rate: float, seed: int) -> None:
        self.training, self.rate, self.protocol = training, rate, training.protocol
        torch.manual_seed(seed)
        with torch.device("cpu"):
            self.module = training.build()
        self.module.to(training.features.device)
        self.random = _RandomState(training.features.device)
        kind = torch.optim.Adam if self.protocol.optimiser == "adam" else torch.optim.AdamW
        self.optimiser = kind(self.module.parameters(), lr=rate, fused=True)
        self.lost = 0
        self.best = -math.inf
        self.best_state = copy.deepcopy(self.module.state_dict())

    def learn(self, batch: Batch[Any]) -> None:
        """Add the gradients of a batch."""
        self.module.train()
        self.random.restore()
        value = self.training.loss(self.module, batch) / self.protocol.accumulation
        value.backward()  # type: ignore[no-untyped-call]
        self.random.keep()

    def step(self, number: int) -> None:
        """Update the weights, unless a gradient is not finite."""
        if self.protocol.schedule == "linear":
            for group in self.optimiser.param_groups:
                group["lr"] = self.rate * (1 - (number - 1) / self.protocol.steps)
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.protocol.gradient_clip)
        if torch.isfinite(norm):
            self.optimiser.step()
        else:
            self.lost += 1
        self.optimiser.zero_grad()

    def judge(self, score: float) -> None:
        """Keep the weights if they are the best so far on dev."""
        if math.isfinite(score) and score > self.best:
            self.best = score
            self.best_state = copy.deepcopy(self.module.state_dict())

    def finished(self) -> Fit:
        """The head in its best state."""
        self.module.load_state_dict(self.best_state)
        diverged = self.lost > self.protocol.steps // 2
        return Fit(
            head=self.module.eval(),
            learning_rate=self.rate,
            dev_score=-math.inf if diverged else self.best,
        )


class _RandomState:
    """torch's global random state, of the CPU and of a device."""

    def __init__(self, device: torch.device) -> None:
        self._device = None if device.type == "cpu" else torch.get_device_module(device)
        self.keep()

    def keep(self) -> None:
        """Save the present state."""
        self._states = (torch.get_rng_state(), self._device and self._device.get_rng_state())

    def restore(self) -> None:
        """Restore the saved state."""
        torch.set_rng_state(self._states[0])
        if self._device is not None:
            self._device.set_rng_state(self._states[1])
