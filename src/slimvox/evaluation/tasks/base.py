"""Base classes of tasks: from a set of examples and an upstream to scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from slimvox.evaluation.examples import SPLITS, ExampleSet
from slimvox.evaluation.feature_cache import FeatureCache
from slimvox.evaluation.protocols import Protocol
from slimvox.util.errors import SlimvoxError

Set = TypeVar("Set", bound=ExampleSet[Any])
Settings = TypeVar("Settings", bound=Protocol)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One figure that a task is judged by."""

    name: str
    title: str
    higher_is_better: bool
    percent: bool = True
    """True if the metric is given in percent."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Result of a task."""

    test: Mapping[str, tuple[float, ...]]
    """Test score of each seed, by metric."""
    chance: Mapping[str, float]
    """Score of guessing, by metric."""
    chance_is: str
    """Description of how the guess was made."""
    counts: Mapping[str, int]
    """Examples used, by split."""
    skipped: Mapping[str, int]
    """Examples left out, by reason."""
    chosen: Mapping[str, Any] = field(default_factory=dict)
    """Settings chosen on dev, and how."""
    titles: Mapping[str, str] = field(default_factory=dict)
    """Titles of metrics that differ from their task's usual title."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else is worth keeping, such as the layers' weights."""
    fit_seconds: float = 0.0


class Task(ABC, Generic[Set, Settings]):
    """A task of the suite."""

    name: ClassVar[str]
    title: ClassVar[str]
    metrics: ClassVar[tuple[Metric, ...]]

    @abstractmethod
    def run(self, data: Set, cache: FeatureCache, protocol: Settings, *, seeds: int) -> Scores:
        """Train heads on the cached features and score them.

        Args:
            data: examples of all splits.
            cache: gives the upstream's features.
            protocol: the head and its training.
            seeds: how many heads to train.

        Raises:
            SlimvoxError: data that cannot be scored.
        """


def check_splits(task: str, splits: Sequence[str]) -> dict[str, int]:
    """Count examples by split; all three must be there.

    Raises:
        SlimvoxError: if one has no example.
    """
    counts = Counter(splits)
    missing = [split for split in SPLITS if not counts[split]]
    if missing:
        raise SlimvoxError(
            f"{task}: there is no example in {' and '.join(missing)};"
            " each of train, dev and test needs some (the learning rate is chosen on dev)"
        )
    return {split: counts[split] for split in SPLITS}


def add_counts(*parts: Mapping[str, int]) -> dict[str, int]:
    """Sum of counts by reason."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(total)
