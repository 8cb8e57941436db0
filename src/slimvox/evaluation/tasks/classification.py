"""Classification: one or several classes per recording, from features averaged over time. KS, SID, IC and ER."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimvox.evaluation.batches import Batch, Item
from slimvox.evaluation.examples import ExampleSet, LabelledExample
from slimvox.evaluation.feature_cache import FeatureCache
from slimvox.evaluation.fitting import Training
from slimvox.evaluation.heads import MeanPoolHead
from slimvox.evaluation.manifests import labelled_set
from slimvox.evaluation.outcomes import Outcomes
from slimvox.evaluation.protocols import OFFICIAL_LEARNING_RATES, ClassificationProtocol
from slimvox.evaluation.readers.fluent_speech_commands import read_fluent_speech_commands
from slimvox.evaluation.readers.iemocap import read_iemocap
from slimvox.evaluation.readers.speech_commands import read_speech_commands
from slimvox.evaluation.readers.voxceleb1 import read_voxceleb1_speakers
from slimvox.evaluation.tasks.base import HeadTask, Metric, Scores, check_splits, usable
from slimvox.evaluation.waveforms import Excerpt
from slimvox.util.errors import SlimvoxError

logger = logging.getLogger("slimvox.evaluation")

Classes = tuple[int, ...]
UNKNOWN = -1
"""Class of labels that do not occur in training, which is never predicted."""


class ClassificationTask(HeadTask[ExampleSet[LabelledExample], ClassificationProtocol]):
    """Accuracy: all labels of a recording right."""

    def prepare(
        self, data: ExampleSet[LabelledExample], cache: FeatureCache, protocol: ClassificationProtocol
    ) -> Training[Classes]:
        """Average the features over time, and number the labels of train."""
        check_splits(self.name, [example.split for example in data.examples])
        excerpts = [
            Excerpt(
                recording=example.recording,
                max_seconds=protocol.train_seconds if example.split == "train" else None,
            )
            for example in data.examples
        ]
        features = cache.features(excerpts, task=self.name, pooling="mean")
        examples, counts = usable(self.name, data.examples, features)
        labels = self._labels(examples)
        skipped, training = (
            features.skipped,
            [each.recording.id for each in examples if each.split == "train"],
        )
        if protocol.whiten:
            features = features.whitened(training)
        elif protocol.standardise:
            features = features.standardised(training)
        items: dict[str, list[Item[Classes]]] = {split: [] for split in counts}
        for each in examples:
            target = tuple(
                names.get(label, UNKNOWN) for label, names in zip(each.labels, labels, strict=True)
            )
            sources = each.recording.sources
            items[each.split].append(Item(id=each.recording.id, target=target, sources=sources))
        unknown = {split: sum(UNKNOWN in item.target for item in items[split]) for split in ("dev", "test")}
        for split, count in unknown.items():
            if count:
                logger.warning(
                    "%s: %d of %d examples in %s have a label that train does not have; they count as wrong",
                    self.name,
                    count,
                    len(items[split]),
                    split,
                )
        classes = [len(names) for names in labels]
        return Training(
            features=features,
            items=items,
            protocol=protocol,
            build=lambda: MeanPoolHead(features.layers, features.width, protocol.projection, classes),
            loss=_loss,
            read=_guesses,
            dev_score=lambda guesses: _accuracy(items["dev"], guesses),
            dev_metric=("accuracy", 1.0),
            class_of=(lambda target: target) if protocol.balanced else None,
            counts=counts,
            skipped=skipped,
            details={"classes": classes, "labels_unknown_to_train": unknown},
            items_at_once=1024,
        )

    def score(self, training: Training[Classes], heads: Sequence[nn.Module]) -> Scores:
        """Accuracy, and that of always guessing the most frequent class."""
        test, metric = training.items["test"], self.metrics[0].name
        majority = Counter(item.target for item in training.items["train"]).most_common(1)[0][0]
        right = [
            [(float(item.target == guess), 1.0) for item, guess in zip(test, guesses, strict=True)]
            for guesses in training.outputs(heads, "test")
        ]
        outcomes = Outcomes.of([item.sources for item in test], right)
        return Scores(
            test={metric: outcomes.scores},
            outcomes={metric: outcomes},
            chance={metric: 100 * _accuracy(test, [majority] * len(test))},
            chance_is="the most frequent class of train",
        )

    def _labels(self, examples: Sequence[LabelledExample]) -> list[dict[str, int]]:
        """For each of the labels, the numbers of the training split's classes in alphabetical order."""
        counts = {len(example.labels) for example in examples}
        if len(counts) != 1 or 0 in counts:
            raise SlimvoxError(f"{self.name}: each example needs the same number of labels, at least one")
        training = [example.labels for example in examples if example.split == "train"]
        names = [Counter(column) for column in zip(*training, strict=True)]
        if all(len(column) < 2 for column in names):
            raise SlimvoxError(
                f"{self.name}: all training examples have the same label; there is nothing to learn"
            )
        for column in names:
            single = sorted(label for label, count in column.items() if count == 1)
            if single:
                logger.warning(
                    "%s: %d classes have a single training example, such as %s",
                    self.name,
                    len(single),
                    single[0],
                )
        return [{label: number for number, label in enumerate(sorted(column))} for column in names]


def _accuracy(items: Sequence[Item[Classes]], guesses: Sequence[Classes]) -> float:
    """Share of items with all labels right."""
    return sum(item.target == guess for item, guess in zip(items, guesses, strict=True)) / len(items)


def _guesses(head: nn.Module, batch: Batch[Classes]) -> list[Classes]:
    best = torch.stack([logits.argmax(-1) for logits in batch.through(head)], 1)
    return [tuple(row) for row in best.tolist()]


def _loss(head: nn.Module, batch: Batch[Classes]) -> Tensor:
    """Sum over the labels of the cross-entropy."""
    targets = torch.tensor(batch.targets, device=batch.features.device)
    losses: list[Tensor] = [
        F.cross_entropy(logits, targets[:, column]) for column, logits in enumerate(batch.through(head))
    ]
    return torch.stack(losses).sum()


_OFFICIAL = ClassificationProtocol(
    learning_rates=OFFICIAL_LEARNING_RATES, batch=32, steps=200_000, evaluations=40
)
MINI_CLASSIFICATION = ClassificationProtocol(
    learning_rates=(3e-4, 1e-3, 3e-3, 1e-2),
    batch=32,
    steps=400,
    evaluations=5,
    schedule="linear",
    whiten=True,
)

KS = ClassificationTask(
    name="ks",
    title="keyword spotting",
    metrics=(Metric(name="ks", title="accuracy", higher_is_better=True),),
    protocols={
        "official": dataclasses.replace(_OFFICIAL, balanced=True),
        "mini": dataclasses.replace(MINI_CLASSIFICATION, balanced=True),
    },
    read_table=labelled_set,
    read_corpus=read_speech_commands,
)
SID = ClassificationTask(
    name="sid",
    title="speaker identification",
    metrics=(Metric(name="sid", title="accuracy", higher_is_better=True),),
    protocols={
        "official": dataclasses.replace(_OFFICIAL, batch=8, accumulation=4, train_seconds=8.0),
        "mini": dataclasses.replace(MINI_CLASSIFICATION, whiten=False, standardise=True),
    },
    read_table=labelled_set,
    read_corpus=read_voxceleb1_speakers,
)
IC = ClassificationTask(
    name="ic",
    title="intent classification",
    metrics=(Metric(name="ic", title="accuracy", higher_is_better=True),),
    protocols={"official": _OFFICIAL, "mini": MINI_CLASSIFICATION},
    read_table=labelled_set,
    read_corpus=read_fluent_speech_commands,
)
ER = ClassificationTask(
    name="er",
    title="emotion recognition",
    metrics=(Metric(name="er", title="accuracy", higher_is_better=True),),
    protocols={
        "official": dataclasses.replace(_OFFICIAL, batch=4, accumulation=8, steps=30_000, evaluations=60),
        "mini": dataclasses.replace(MINI_CLASSIFICATION, learning_rates=(3e-4, 1e-3, 3e-3), steps=300),
    },
    read_table=labelled_set,
    read_corpus=read_iemocap,
)
