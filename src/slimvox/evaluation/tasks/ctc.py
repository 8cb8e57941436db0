"""Tasks whose heads output symbols, trained with CTC and decoded greedily: PR, ASR and SF."""

from __future__ import annotations

import itertools
import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimvox.evaluation.batches import Batch, Item
from slimvox.evaluation.feature_cache import FeatureCache
from slimvox.evaluation.fitting import Training
from slimvox.evaluation.heads import RecurrentCTCHead
from slimvox.evaluation.outcomes import Counts, Outcomes, rate
from slimvox.evaluation.tasks.base import HeadTask, Scores, Set, Settings, add_counts, check_splits
from slimvox.evaluation.waveforms import Excerpt
from slimvox.util.errors import SlimvoxError

logger = logging.getLogger("slimvox.evaluation")

BLANK = 0
Symbols = tuple[str, ...]


class CTCTask(HeadTask[Set, Settings]):
    """A task whose head writes symbols.

    Training examples without a symbol, or with more symbols than steps, are skipped and counted; so are dev and test
    examples without a transcript. Dev and test examples that are only too long for their frames are kept,
    because failing on them is a property of the encoder.
    """

    dev_metric: ClassVar[tuple[str, float]]
    """Name and factor by which the score on dev is reported."""

    @abstractmethod
    def symbols(self, example: Any, protocol: Settings) -> Symbols:
        """Symbols of an example's transcript."""

    def head(self, layers: int, width: int, classes: int, protocol: Any) -> nn.Module:
        """A head that returns logits (batch, steps, classes) and their lengths; class 0 is CTC's blank."""
        return RecurrentCTCHead(layers, width, classes, protocol)

    @abstractmethod
    def counted(
        self, references: Sequence[Symbols], guesses: Sequence[Symbols], protocol: Settings
    ) -> dict[str, Counts]:
        """Value and size of each example, by metric, and of further scores for the result's details."""

    @abstractmethod
    def dev_score(
        self, references: Sequence[Symbols], guesses: Sequence[Symbols], protocol: Settings
    ) -> float:
        """Score on dev by which the learning rate is chosen; higher is better."""

    def title_of(self, metric: str, protocol: Settings) -> str | None:
        """Title of a metric under a protocol, if it is not its usual one."""

    def prepare(self, data: Set, cache: FeatureCache, protocol: Settings) -> Training[Symbols]:
        """Get the features, and leave out examples that CTC cannot use."""
        said = {each.recording.id: self.symbols(each, protocol) for each in data.examples}
        examples = [each for each in data.examples if said[each.recording.id]]
        skipped: dict[str, int] = {}
        if len(examples) < len(data.examples):
            skipped["no transcript"] = len(data.examples) - len(examples)
            logger.warning(
                "%s: skipped %d utterances without a transcript", self.name, skipped["no transcript"]
            )
        check_splits(self.name, [each.split for each in examples], skipped)
        excerpts = [Excerpt(recording=each.recording) for each in examples]
        training = [e for e, x in zip(excerpts, examples, strict=True) if x.split == "train"]
        features = cache.features(excerpts, task=self.name, whiten_on=training if protocol.whiten else ())
        items: dict[str, list[Item[Symbols]]] = {"train": [], "dev": [], "test": []}
        frames_per_step = getattr(protocol, "stack", 1)
        for each in examples:
            id = each.recording.id
            if id not in features:
                continue
            steps = -(-features.frames(id) // frames_per_step)
            if each.split == "train" and steps < _steps_needed(said[id]):
                skipped["longer transcript than audio"] = skipped.get("longer transcript than audio", 0) + 1
                continue
            items[each.split].append(Item(id=id, target=said[id], sources=each.recording.sources))
        skipped = add_counts(skipped, features.skipped)
        counts = check_splits(self.name, [split for split, found in items.items() for _ in found], skipped)
        alphabet = Alphabet(symbols=tuple(sorted({s for item in items["train"] for s in item.target})))
        if not alphabet.symbols:
            raise SlimvoxError(f"{self.name}: there are no symbols in the training transcripts")
        dev = [item.target for item in items["dev"]]
        return Training(
            features=features,
            items=items,
            protocol=protocol,
            build=lambda: self.head(features.layers, features.width, alphabet.classes, protocol),
            loss=lambda head, batch: ctc_loss(head, batch, alphabet),
            read=lambda head, batch: _read(head, batch, alphabet),
            dev_score=lambda guesses: self.dev_score(dev, guesses, protocol),
            dev_metric=self.dev_metric,
            counts=counts,
            skipped=skipped,
            details={"symbols": len(alphabet.symbols)},
        )

    def score(self, training: Training[Symbols], heads: Sequence[nn.Module]) -> Scores:
        """The metrics of each head, and of shuffled transcripts."""
        protocol: Any = training.protocol
        test = training.items["test"]
        references, sources = [item.target for item in test], [item.sources for item in test]
        counted = [self.counted(references, guesses, protocol) for guesses in training.outputs(heads, "test")]
        chance = self.counted(references, shuffled(references), protocol)
        found = {name: Outcomes.of(sources, [each[name] for each in counted]) for name in chance}
        names = [metric.name for metric in self.metrics]
        titles = {name: self.title_of(name, protocol) for name in names}
        return Scores(
            test={name: found[name].scores for name in names},
            outcomes={name: found[name] for name in names},
            chance={name: 100 * rate(chance[name]) for name in names},
            chance_is="the transcripts of test, shuffled",
            titles={name: title for name, title in titles.items() if title},
            details={name: list(each.scores) for name, each in found.items() if name not in names},
        )


@dataclass(frozen=True, kw_only=True)
class Alphabet:
    """The symbols of the training data, by class from 1 upwards."""

    symbols: Symbols

    @property
    def classes(self) -> int:
        """Number of classes, including the CTC blank."""
        return len(self.symbols) + 1

    @cached_property
    def _classes(self) -> Mapping[str, int]:
        return {symbol: number for number, symbol in enumerate(self.symbols, 1)}

    def encode(self, symbols: Symbols) -> list[int]:
        """Classes of symbols; all must be known."""
        return [self._classes[symbol] for symbol in symbols]

    def decode(self, classes: Sequence[int]) -> Symbols:
        """Symbols of classes, blanks left out."""
        return tuple(self.symbols[each - 1] for each in classes if each != BLANK)


def ctc_loss(head: nn.Module, batch: Batch[Symbols], alphabet: Alphabet) -> Tensor:
    """Mean over the batch of the negative log-likelihood per symbol."""
    logits, lengths = batch.through(head)
    labels = [alphabet.encode(target) for target in batch.targets]
    logarithms = logits.log_softmax(-1).transpose(0, 1)
    if logarithms.device.type == "mps":  # torch has no CTC loss there
        logarithms = logarithms.cpu()
    device = logarithms.device
    return F.ctc_loss(
        logarithms,
        torch.tensor([label for row in labels for label in row], device=device),
        lengths.to(device),
        torch.tensor([len(row) for row in labels], device=device),
        blank=BLANK,
        zero_infinity=True,
    )


def _read(head: nn.Module, batch: Batch[Symbols], alphabet: Alphabet) -> list[Symbols]:
    """Greedily decoded symbols."""
    logits, lengths = batch.through(head)
    return [
        alphabet.decode(row[:length].unique_consecutive().tolist())
        for row, length in zip(logits.argmax(-1).cpu(), lengths.tolist(), strict=True)
    ]


def shuffled(references: Sequence[Symbols]) -> list[Symbols]:
    """Other references as guesses, to measure chance."""
    order = torch.randperm(len(references), generator=torch.Generator().manual_seed(0), device="cpu").tolist()
    return [references[index] for index in order]


def _steps_needed(symbols: Symbols) -> int:
    """Minimum number of steps for some symbols; CTC separates equal neighbours by a blank."""
    return len(symbols) + sum(a == b for a, b in itertools.pairwise(symbols))
