"""ASV: an x-vector network trained to tell speakers apart; equal error rate of cosines on speakers it never heard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimvox.evaluation.examples import Recording, Trial, VerificationSet
from slimvox.evaluation.feature_cache import FeatureCache
from slimvox.evaluation.features import Features
from slimvox.evaluation.fitting import Batch, Item, endless, fit, in_order, sweep
from slimvox.evaluation.heads import AdditiveMarginSoftmax, SpeakerHead, layer_weights
from slimvox.evaluation.manifests import verification
from slimvox.evaluation.metrics.equal_error_rate import equal_error_rate
from slimvox.evaluation.protocols import OFFICIAL_LEARNING_RATES, VerificationProtocol
from slimvox.evaluation.readers.voxceleb1 import read_voxceleb1_trials
from slimvox.evaluation.tasks.base import Metric, Scores, Task, add_counts
from slimvox.evaluation.waveforms import Excerpt
from slimvox.util.errors import SlimvoxError


class SpeakerVerification(Task[VerificationSet, VerificationProtocol]):
    """Speaker verification."""

    def run(
        self, data: VerificationSet, cache: FeatureCache, protocol: VerificationProtocol, *, seeds: int
    ) -> Scores:
        """Train heads and score the trials."""
        training = [
            Excerpt(recording=each.recording, max_seconds=protocol.train_seconds)
            for each in data.examples
            if each.split == "train"
        ]
        tried = [Excerpt(recording=each) for each in trial_recordings(data).values()]
        features = cache.features(
            [*training, *tried], task=self.name, whiten_on=training if protocol.whiten else ()
        )
        speakers = sorted({each.labels[0] for each in data.examples if each.split == "train"})
        items = [
            Item(id=each.recording.id, target=speakers.index(each.labels[0]))
            for each in data.examples
            if each.split == "train" and each.recording.id in features
        ]
        trials = {split: self._trials(data.trials, split, features) for split in ("dev", "test")}
        if len({item.target for item in items}) < 2:
            raise SlimvoxError(f"{self.name}: train must have at least two speakers")
        swept = sweep(
            lambda rate, seed: fit(
                build=lambda: _TrainedSpeakerHead(features.layers, features.width, len(speakers), protocol),
                batches=lambda generator: endless(features, items, protocol.batch, generator),
                loss=_loss,
                dev_score=lambda head: -_error_rate(head, features, trials["dev"], protocol.batch),
                protocol=protocol,
                learning_rate=rate,
                seed=seed,
                device=features.device,
            ),
            protocol.learning_rates,
            seeds,
            self.name,
        )
        random = np.random.default_rng(0).random(len(trials["test"]))
        lost = {f"{split} trials" for split in trials if len(trials[split]) < _count(data.trials, split)}
        return Scores(
            test={
                "asv": tuple(
                    _error_rate(each.head, features, trials["test"], protocol.batch) for each in swept.fits
                )
            },
            chance={"asv": 100 * equal_error_rate(random, [each.same for each in trials["test"]]).rate},
            chance_is="random scores",
            counts={
                "train": len(items),
                "dev": len(trials["dev"]),
                "test": len(trials["test"]),
            },
            skipped=add_counts(
                data.skipped,
                features.skipped,
                {name: _count(data.trials, name.split()[0]) - len(trials[name.split()[0]]) for name in lost},
            ),
            chosen={
                "learning_rate": swept.fits[0].learning_rate,
                "dev_eer_by_learning_rate": {rate: -score for rate, score in swept.dev_scores.items()},
            },
            details={
                "training_speakers": len(speakers),
                "layer_weights": layer_weights(swept.fits[0].head),
                "frame_rate_hz": features.frame_rate_hz,
            },
            fit_seconds=swept.seconds,
        )

    def _trials(self, trials: Sequence[Trial], split: str, features: Features) -> list[Trial]:
        """Trials of a split whose recordings could be read."""
        found = [
            each
            for each in trials
            if each.split == split and each.first in features and each.second in features
        ]
        if not any(each.same for each in found) or all(each.same for each in found):
            raise SlimvoxError(
                f"{self.name}: {split} needs trials of the same and of different speakers"
                " (dev is what the learning rate is chosen on)"
            )
        return found


class _TrainedSpeakerHead(nn.Module):
    """The x-vector network with the classifier that trains it."""

    def __init__(self, layers: int, width: int, speakers: int, protocol: VerificationProtocol) -> None:
        super().__init__()
        self.network = SpeakerHead(layers, width, protocol)
        self.classifier = AdditiveMarginSoftmax(
            protocol.embedding, speakers, scale=protocol.scale, margin=protocol.margin
        )

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Embeddings."""
        embeddings: Tensor = self.network(features, lengths)
        return embeddings


def trial_recordings(data: VerificationSet) -> Mapping[str, Recording]:
    """The recordings that trials name.

    Raises:
        SlimvoxError: if a trial names one that is not there, or one that trains the head.
    """
    training = {each.recording.id for each in data.examples if each.split == "train"}
    found = {}
    for trial in data.trials:
        for id in (trial.first, trial.second):
            if id not in data.recordings:
                raise SlimvoxError(f"asv: a trial names the recording {id}, which is not there")
            if id in training:
                raise SlimvoxError(f"asv: the recording {id} is in train and in a trial of {trial.split}")
            found[id] = data.recordings[id]
    return found


@torch.inference_mode()
def _error_rate(head: nn.Module, features: Features, trials: Sequence[Trial], batch_size: int) -> float:
    """Equal error rate in percent."""
    ids = sorted({id for trial in trials for id in (trial.first, trial.second)})
    items = [Item(id=id, target=None) for id in ids]
    embeddings: dict[str, Tensor] = {}
    for indices, batch in in_order(features, items, batch_size):
        normalised = F.normalize(head(batch.features, batch.lengths), dim=-1).cpu()
        embeddings.update((ids[index], row) for index, row in zip(indices, normalised, strict=True))
    first = torch.stack([embeddings[trial.first] for trial in trials])
    second = torch.stack([embeddings[trial.second] for trial in trials])
    scores = (first * second).sum(-1)
    if not torch.isfinite(scores).all():
        return float("nan")
    return 100 * equal_error_rate(scores.numpy(), [trial.same for trial in trials]).rate


def _loss(head: nn.Module, batch: Batch[int]) -> Tensor:
    assert isinstance(head, _TrainedSpeakerHead)
    targets = torch.tensor(batch.targets, device=batch.features.device)
    loss: Tensor = head.classifier(head(batch.features, batch.lengths), targets)
    return loss


def _count(trials: Sequence[Trial], split: str) -> int:
    return sum(trial.split == split for trial in trials)


ASV = SpeakerVerification(
    name="asv",
    title="speaker verification",
    metrics=(Metric(name="asv", title="EER", higher_is_better=False),),
    protocols={
        "official": VerificationProtocol(
            learning_rates=OFFICIAL_LEARNING_RATES,
            batch=10,
            accumulation=5,
            steps=200_000,
            evaluations=10,
            optimiser="adamw",
            gradient_clip=1e3,
        ),
        "mini": VerificationProtocol(
            learning_rates=(1e-3, 3e-3),
            batch=32,
            steps=150,
            evaluations=2,
            schedule="linear",
            optimiser="adamw",
            gradient_clip=1e3,
            whiten=True,
            projection=128,
            hidden=128,
            pooled=256,
            embedding=128,
            train_seconds=2.0,
        ),
    },
    read_table=verification,
    read_corpus=read_voxceleb1_trials,
)
