"""Common parts of PR, ASR and SF: symbols, CTC loss, greedy decoding."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimvox.evaluation.feature_cache import FeatureCache
from slimvox.evaluation.features import Features
from slimvox.evaluation.fitting import Batch, Item, Sweep, endless, fit, in_order, sweep
from slimvox.evaluation.protocols import HeadProtocol
from slimvox.evaluation.tasks.base import add_counts, check_splits
from slimvox.evaluation.waveforms import Excerpt
from slimvox.util.errors import SlimvoxError

logger = logging.getLogger("slimvox.evaluation")

BLANK = 0
Symbols = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Alphabet:
    """The symbols that training knows, by class from 1 on."""

    symbols: Symbols

    @property
    def classes(self) -> int:
        """Number of classes, including the CTC blank."""
        return len(self.symbols) + 1

    def encode(self, symbols: Symbols) -> list[int]:
        """Classes of symbols; all must be known."""
        return [1 + self.symbols.index(symbol) for symbol in symbols]

    def decode(self, classes: Sequence[int]) -> Symbols:
        """Symbols of classes, blanks left out."""
        return tuple(self.symbols[each - 1] for each in classes if each != BLANK)


@dataclass(frozen=True, kw_only=True)
class SequenceData:
    """Recordings with the symbols said in them, ready for CTC."""

    features: Features
    items: Mapping[str, list[Item[Symbols]]]
    """Items by split."""
    alphabet: Alphabet
    counts: dict[str, int]
    skipped: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Sequenced:
    """One recording and the symbols said in it, before its features are known."""

    excerpt: Excerpt
    split: str
    symbols: Symbols


def prepare(
    task: str, examples: Sequence[Sequenced], cache: FeatureCache, *, whiten: bool, frames_per_step: int = 1
) -> SequenceData:
    """Get features, and leave out what CTC cannot use.

    Training examples without a symbol, or with more symbols than steps, are skipped and counted; so are dev and test
    examples without a transcript. Dev and test examples that are merely too long for their frames stay: not being
    able to read them is the encoder's fault.
    """
    kept = [example for example in examples if example.symbols]
    skipped: dict[str, int] = {}
    if len(kept) < len(examples):
        skipped["no transcript"] = len(examples) - len(kept)
        logger.warning("%s: skipped %d utterances without a transcript", task, skipped["no transcript"])
    check_splits(task, [example.split for example in kept])
    training = [example.excerpt for example in kept if example.split == "train"]
    features = cache.features(
        [example.excerpt for example in kept], task=task, whiten_on=training if whiten else ()
    )
    items: dict[str, list[Item[Symbols]]] = {"train": [], "dev": [], "test": []}
    for example in kept:
        id = example.excerpt.id
        if id not in features:
            continue
        steps = -(-features.frames(id) // frames_per_step)
        if example.split == "train" and steps < _steps_needed(example.symbols):
            skipped["longer transcript than audio"] = skipped.get("longer transcript than audio", 0) + 1
            continue
        items[example.split].append(Item(id=id, target=example.symbols))
    counts = check_splits(task, [split for split, found in items.items() for _ in found])
    alphabet = Alphabet(symbols=tuple(sorted({s for item in items["train"] for s in item.target})))
    if not alphabet.symbols:
        raise SlimvoxError(f"{task}: there are no symbols in the training transcripts")
    return SequenceData(
        features=features,
        items=items,
        alphabet=alphabet,
        counts=counts,
        skipped=add_counts(skipped, features.skipped),
    )


def fit_ctc(
    task: str,
    data: SequenceData,
    build: Callable[[], nn.Module],
    dev_score: Callable[[Sequence[Symbols], Sequence[Symbols]], float],
    protocol: HeadProtocol,
    *,
    seeds: int,
) -> Sweep:
    """Train heads; `dev_score` takes references and guesses, higher is better."""
    return sweep(
        lambda rate, seed: fit(
            build=build,
            batches=lambda generator: endless(data.features, data.items["train"], protocol.batch, generator),
            loss=lambda head, batch: ctc_loss(head, batch, data.alphabet),
            dev_score=lambda head: dev_score(*read(head, data, "dev", protocol.batch)),
            protocol=protocol,
            learning_rate=rate,
            seed=seed,
            device=data.features.device,
        ),
        protocol.learning_rates,
        seeds,
        task,
    )


def ctc_loss(head: nn.Module, batch: Batch[Symbols], alphabet: Alphabet) -> Tensor:
    """Mean over the batch of the negative log-likelihood per symbol."""
    logits, lengths = head(batch.features, batch.lengths)
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


@torch.inference_mode()
def read(
    head: nn.Module, data: SequenceData, split: str, batch_size: int
) -> tuple[list[Symbols], list[Symbols]]:
    """References and greedy guesses of a split, in its order."""
    items = data.items[split]
    guesses: list[Symbols] = [()] * len(items)
    for indices, batch in in_order(data.features, items, batch_size):
        logits, lengths = head(batch.features, batch.lengths)
        best = logits.argmax(-1).cpu()
        for index, row, length in zip(indices, best, lengths.tolist(), strict=True):
            guesses[index] = data.alphabet.decode(row[:length].unique_consecutive().tolist())
    return [item.target for item in items], guesses


def shuffled(references: Sequence[Symbols]) -> list[Symbols]:
    """Each reference's guess is another reference: what is right by chance."""
    order = torch.randperm(len(references), generator=torch.Generator().manual_seed(0), device="cpu").tolist()
    return [references[index] for index in order]


def _steps_needed(symbols: Symbols) -> int:
    """CTC parts equal neighbours by a blank."""
    return len(symbols) + sum(a == b for a, b in itertools.pairwise(symbols))
