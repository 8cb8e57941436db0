"""Classification: one or several classes per recording, from features averaged over time. KS, SID, IC and ER."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimvox.evaluation.examples import ExampleSet, LabelledExample
from slimvox.evaluation.feature_cache import FeatureCache
from slimvox.evaluation.features import Features
from slimvox.evaluation.fitting import Batch, Item, endless, fit, in_order, sweep
from slimvox.evaluation.heads import MeanPoolHead, layer_weights
from slimvox.evaluation.manifests import labelled_set
from slimvox.evaluation.protocols import OFFICIAL_LEARNING_RATES, ClassificationProtocol
from slimvox.evaluation.readers.fluent_speech_commands import read_fluent_speech_commands
from slimvox.evaluation.readers.iemocap import read_iemocap
from slimvox.evaluation.readers.speech_commands import read_speech_commands
from slimvox.evaluation.readers.voxceleb1 import read_voxceleb1_speakers
from slimvox.evaluation.tasks.base import Metric, Scores, Task, add_counts, check_splits
from slimvox.evaluation.waveforms import Excerpt
from slimvox.util.errors import SlimvoxError

logger = logging.getLogger("slimvox.evaluation")

Classes = tuple[int, ...]
UNKNOWN = -1
"""Stands for a label that training does not know: never the right answer."""


class ClassificationTask(Task[ExampleSet[LabelledExample], ClassificationProtocol]):
    """Accuracy: all labels of a recording right."""

    def run(
        self,
        data: ExampleSet[LabelledExample],
        cache: FeatureCache,
        protocol: ClassificationProtocol,
        *,
        seeds: int,
    ) -> Scores:
        """Train heads on features averaged over time, and score them."""
        check_splits(self.name, [example.split for example in data.examples])
        excerpts = [
            Excerpt(
                recording=example.recording,
                max_seconds=protocol.train_seconds if example.split == "train" else None,
            )
            for example in data.examples
        ]
        features = cache.features(excerpts, task=self.name, pooling="mean")
        usable = [example for example in data.examples if example.recording.id in features]
        counts = check_splits(self.name, [example.split for example in usable])
        labels = self._labels(usable)
        training = [example.recording.id for example in usable if example.split == "train"]
        if protocol.whiten:
            features = features.whitened(training)
        elif protocol.standardise:
            features = features.standardised(training)
        items = {
            split: [
                Item(id=example.recording.id, target=_classes(example, labels))
                for example in usable
                if example.split == split
            ]
            for split in counts
        }
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
        swept = sweep(
            lambda rate, seed: fit(
                build=lambda: MeanPoolHead(
                    features.layers, features.width, protocol.projection, [len(names) for names in labels]
                ),
                batches=lambda generator: endless(
                    features,
                    items["train"],
                    protocol.batch,
                    generator,
                    class_of=(lambda target: target) if protocol.balanced else None,
                ),
                loss=_loss,
                dev_score=lambda head: accuracy(head, features, items["dev"]),
                protocol=protocol,
                learning_rate=rate,
                seed=seed,
                device=features.device,
            ),
            protocol.learning_rates,
            seeds,
            self.name,
        )
        with torch.inference_mode():
            test = tuple(100 * accuracy(each.head, features, items["test"]) for each in swept.fits)
        majority = Counter(item.target for item in items["train"]).most_common(1)[0][0]
        guessed = sum(item.target == majority for item in items["test"]) / len(items["test"])
        return Scores(
            test={self.metrics[0].name: test},
            chance={self.metrics[0].name: 100 * guessed},
            chance_is="the most frequent class of train",
            counts=counts,
            skipped=add_counts(data.skipped, features.skipped),
            chosen={
                "learning_rate": swept.fits[0].learning_rate,
                "dev_accuracy_by_learning_rate": swept.dev_scores,
            },
            details={
                "classes": [len(names) for names in labels],
                "labels_unknown_to_train": unknown,
                "layer_weights": layer_weights(swept.fits[0].head),
                "frame_rate_hz": features.frame_rate_hz,
            },
            fit_seconds=swept.seconds,
        )

    def _labels(self, examples: Sequence[LabelledExample]) -> list[list[str]]:
        """Sorted classes of the training split, by label."""
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
        return [sorted(column) for column in names]


@torch.inference_mode()
def accuracy(head: nn.Module, features: Features, items: Sequence[Item[Classes]]) -> float:
    """Share of items with all labels right."""
    right = 0
    for _, batch in in_order(features, items, 1024):
        guesses = torch.stack([logits.argmax(-1) for logits in head(batch.features, batch.lengths)], 1)
        right += int((guesses == torch.tensor(batch.targets, device=guesses.device)).all(1).sum())
    return right / len(items)


def _loss(head: nn.Module, batch: Batch[Classes]) -> Tensor:
    """Sum over the labels of the cross-entropy."""
    targets = torch.tensor(batch.targets, device=batch.features.device)
    losses: list[Tensor] = [
        F.cross_entropy(logits, targets[:, column])
        for column, logits in enumerate(head(batch.features, batch.lengths))
    ]
    return torch.stack(losses).sum()


def _classes(example: LabelledExample, labels: list[list[str]]) -> Classes:
    return tuple(
        names.index(label) if label in names else UNKNOWN
        for label, names in zip(example.labels, labels, strict=True)
    )


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
        "mini": dataclasses.replace(MINI_CLASSIFICATION, whiten=False, standardise=True, train_seconds=3.0),
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
