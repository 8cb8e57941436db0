"""Base classes of tasks: from a set of examples and an upstream to scores."""

from __future__ import annotations

import dataclasses
import math
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from torch import nn

from slimvox.evaluation.examples import SPLITS, ExampleSet, Recording
from slimvox.evaluation.feature_cache import FeatureCache
from slimvox.evaluation.features import Features, skipped_text
from slimvox.evaluation.fitting import Training, fit, sweep
from slimvox.evaluation.heads import layer_weights
from slimvox.evaluation.manifests import TaskTable
from slimvox.evaluation.outcomes import Outcomes
from slimvox.evaluation.protocols import HeadProtocol, SuiteName
from slimvox.util.errors import SlimvoxError

Set = TypeVar("Set", bound=ExampleSet[Any])
Settings = TypeVar("Settings", bound=HeadProtocol)

MINI_FOLDER = Path(str(resources.files("slimvox.evaluation") / "mini"))


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One figure that a task is judged by."""

    name: str
    title: str
    higher_is_better: bool
    percent: bool = True
    """True if the range is 0 to 100; otherwise it is 0 to 1."""

    def goodness(self, value: float) -> float:
        """The value in percent, reversed if necessary so that higher is better."""
        percent = value if self.percent else 100 * value
        return percent if self.higher_is_better else 100 - percent


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Result of a task."""

    test: Mapping[str, tuple[float, ...]]
    """Test score of each seed, by metric."""
    chance: Mapping[str, float]
    """Chance score, by metric."""
    chance_is: str
    """Description of the guess behind the chance score."""
    outcomes: Mapping[str, Outcomes] = field(default_factory=dict)
    """Results by test example, by metric; without them there are no confidence intervals."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Examples used, by split."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Examples left out, by reason."""
    chosen: Mapping[str, Any] = field(default_factory=dict)
    """Settings chosen on dev, with the values they were chosen by."""
    titles: Mapping[str, str] = field(default_factory=dict)
    """Titles of metrics that differ from their task's usual title."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Further facts for the result file, such as the layers' weights."""
    fit_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Task(ABC, Generic[Set, Settings]):
    """A task: its data, its head with the protocol that trains it, and its metrics."""

    name: str
    """Identifier on the command line and in file names."""
    title: str
    """Name in the help and in the docs."""
    metrics: tuple[Metric, ...]
    """Metrics that `run` returns. The name of the first begins with that of the task."""
    protocols: Mapping[SuiteName, Settings]
    """Settings of the head and its training, `official` and `mini`."""
    read_table: Callable[[TaskTable], Set]
    """Reads the rows of a manifest, see `slimvox.evaluation.manifests`."""
    read_corpus: Callable[[Path], Set | tuple[Set, ...]] | None = None
    """Reads the official data from a folder, one set per fold; None for a task without official data."""
    packages: tuple[str, ...] = ()
    """Modules of slimvox's extra `evaluation` that the metrics need."""
    mini_folder: Path = MINI_FOLDER
    """Folder of the tables of `mini`: NAME.tsv, or NAME_1.tsv, NAME_2.tsv and so on for folds."""

    def mini_tables(self) -> list[Path]:
        """The tables of `mini`; empty for a task without tables."""
        return sorted(self.mini_folder.glob(f"{self.name}.tsv")) or sorted(
            self.mini_folder.glob(f"{self.name}_*.tsv")
        )

    def has_data(self, suite: SuiteName) -> bool:
        """True if a suite has data for the task."""
        return self.read_corpus is not None if suite == "official" else bool(self.mini_tables())

    def read_manifest(self, manifest: Path, root: Path, *, fold: int = 1) -> Set:
        """Read a table whose paths are relative to `root`, for a table of folds one of them; errors name the line."""
        return self.read_table(TaskTable(manifest, root, self.name, fold=fold))

    def read_folds(self, manifest: Path, root: Path) -> list[Set]:
        """Read a table: one set for fixed splits, or one for each fold."""
        count = max(1, TaskTable(manifest, root, self.name).folds)
        return [self.read_manifest(manifest, root, fold=fold) for fold in range(1, count + 1)]

    def read_official(self, data: Path) -> tuple[Set, ...]:
        """Read the official data, one set per fold.

        Raises:
            SlimvoxError: if there is none, or it is missing or incomplete; the message says what to download.
        """
        if self.read_corpus is None:
            raise SlimvoxError(f"{self.name} has no official data; give --manifest {self.name}=FILE")
        found = self.read_corpus(data)
        return found if isinstance(found, tuple) else (found,)

    def recordings(self, example: Any) -> tuple[Recording, ...]:
        """The recordings of an example."""
        return (example.recording,)

    def all_recordings(self, data: Set) -> Iterator[Recording]:
        """The recordings of all examples."""
        for example in data.examples:
            yield from self.recordings(example)

    @abstractmethod
    def run(self, data: Set, cache: FeatureCache, protocol: Settings, *, seeds: int) -> Scores:
        """Train heads on the upstream's features and score them.

        Args:
            data: examples of all splits.
            cache: provides the features of the upstream.
            protocol: the head and its training.
            seeds: number of heads to train.

        Raises:
            SlimvoxError: if the data cannot be scored.
        """


class HeadTask(Task[Set, Settings]):
    """A task with a head that is trained."""

    def run(self, data: Set, cache: FeatureCache, protocol: Settings, *, seeds: int) -> Scores:
        """Prepare, train at each learning rate, train further seeds at the best, and score."""
        training = self.prepare(data, cache, protocol)
        started, encoded = time.perf_counter(), cache.encoding.seconds
        swept = sweep(
            lambda rates, seed: fit(training, rates, seed), protocol.learning_rates, seeds, self.name
        )
        seconds = time.perf_counter() - started - (cache.encoding.seconds - encoded)
        scores = self.score(training, [each.head for each in swept.fits])
        name, factor = training.dev_metric
        dev_scores = {
            rate: factor * score if math.isfinite(score) else None for rate, score in swept.dev_scores.items()
        }
        rate = swept.fits[0].learning_rate
        return dataclasses.replace(
            scores,
            counts=training.counts,
            skipped=add_counts(data.skipped, training.skipped),
            chosen={"learning_rate": rate, f"dev_{name}_by_learning_rate": dev_scores, **scores.chosen},
            details={
                **training.details,
                **scores.details,
                "layer_weights": layer_weights(swept.fits[0].head),
                "frame_rate_hz": training.features.frame_rate_hz,
            },
            fit_seconds=seconds,
        )

    @abstractmethod
    def prepare(self, data: Set, cache: FeatureCache, protocol: Settings) -> Training[Any]:
        """Get the features and describe the head and its training.

        Raises:
            SlimvoxError: if the data cannot be scored.
        """

    @abstractmethod
    def score(self, training: Training[Any], heads: Sequence[nn.Module]) -> Scores:
        """Scores of trained heads on test, and of chance; further settings are chosen on dev first."""


def check_splits(
    task: str, splits: Sequence[str], skipped: Mapping[str, int] = MappingProxyType({})
) -> dict[str, int]:
    """Count examples by split; none of the three may be empty.

    Args:
        task: name of the task, for the message.
        splits: split of each example.
        skipped: examples that were left out before, counted by reason; for the message.

    Raises:
        SlimvoxError: if one has no example.
    """
    counts = Counter(splits)
    missing = [split for split in SPLITS if not counts[split]]
    if missing:
        raise SlimvoxError(
            f"{task}: there is no example in {' and '.join(missing)}{skipped_text(skipped)};"
            " each of train, dev and test needs some (the learning rate is chosen on dev)"
        )
    return {split: counts[split] for split in SPLITS}


def usable(task: str, examples: Sequence[Any], features: Features) -> tuple[list[Any], dict[str, int]]:
    """Examples whose recording has features, and their number by split.

    Raises:
        SlimvoxError: if a split has none.
    """
    found = [each for each in examples if each.recording.id in features]
    return found, check_splits(task, [each.split for each in found], features.skipped)


def add_counts(*parts: Mapping[str, int]) -> dict[str, int]:
    """Sum of counts by reason."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(total)
