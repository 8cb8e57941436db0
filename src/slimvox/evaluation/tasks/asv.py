"""ASV: an x-vector network trained to distinguish speakers; equal error rate of cosines on unseen speakers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimvox.evaluation.batches import Batch, Item
from slimvox.evaluation.examples import Recording, Trial, VerificationSet
from slimvox.evaluation.feature_cache import FeatureCache
from slimvox.evaluation.features import Features
from slimvox.evaluation.fitting import Training
from slimvox.evaluation.heads import AdditiveMarginSoftmax, SpeakerHead
from slimvox.evaluation.manifests import verification
from slimvox.evaluation.metrics.equal_error_rate import equal_error_rate
from slimvox.evaluation.outcomes import Counts, Outcomes
from slimvox.evaluation.protocols import OFFICIAL_LEARNING_RATES, VerificationProtocol
from slimvox.evaluation.readers.voxceleb1 import read_voxceleb1_trials
from slimvox.evaluation.tasks.base import HeadTask, Metric, Scores, add_counts
from slimvox.evaluation.waveforms import Excerpt
from slimvox.util.errors import SlimvoxError


@dataclass(frozen=True, kw_only=True)
class _VerificationTraining(Training[Any]):
    trials: Sequence[Trial]
    """Trials of the test split."""
    speakers: Mapping[str, str]
    """Speaker of each recording, or the recording itself if unknown."""


class SpeakerVerification(HeadTask[VerificationSet, VerificationProtocol]):
    """Speaker verification."""

    def prepare(
        self, data: VerificationSet, cache: FeatureCache, protocol: VerificationProtocol
    ) -> Training[int]:
        """Get the features of the training utterances and of those that trials name."""
        of_train = [each for each in data.examples if each.split == "train"]
        training = [
            Excerpt(recording=each.recording, max_seconds=protocol.train_seconds) for each in of_train
        ]
        tried = [Excerpt(recording=each) for each in trial_recordings(data).values()]
        features = cache.features(
            [*training, *tried], task=self.name, whiten_on=training if protocol.whiten else ()
        )
        names = sorted({each.labels[0] for each in of_train})
        speakers = {name: number for number, name in enumerate(names)}
        items: dict[str, list[Item[Any]]] = {
            "train": [
                Item(id=each.recording.id, target=speakers[each.labels[0]])
                for each in of_train
                if each.recording.id in features
            ]
        }
        if len({item.target for item in items["train"]}) < 2:
            raise SlimvoxError(f"{self.name}: train must have at least two speakers")
        counts = {"train": len(items["train"])}
        lost: dict[str, int] = {}
        trials = {split: self._trials(data.trials, split, features) for split in ("dev", "test")}
        for split, found in trials.items():
            counts[split] = len(found)
            missing = sum(trial.split == split for trial in data.trials) - len(found)
            lost |= {f"{split} trials": missing} if missing else {}
            ids = sorted({id for trial in found for id in (trial.first, trial.second)})
            items[split] = [Item(id=id, target=None) for id in ids]
        return _VerificationTraining(
            features=features,
            items=items,
            protocol=protocol,
            build=lambda: _TrainedSpeakerHead(features.layers, features.width, len(speakers), protocol),
            loss=_loss,
            read=_embeddings,
            dev_score=lambda embeddings: (
                -_error_rate(trials["dev"], _trial_scores(trials["dev"], items["dev"], embeddings))
            ),
            dev_metric=("eer", -1.0),
            counts=counts,
            skipped=add_counts(features.skipped, lost),
            details={"training_speakers": len(speakers)},
            trials=trials["test"],
            speakers=speakers_of(data),
        )

    def all_recordings(self, data: VerificationSet) -> Iterator[Recording]:
        """The training utterances, and the recordings that trials name."""
        yield from super().all_recordings(data)
        yield from data.recordings.values()

    def score(self, training: Training[int], heads: Sequence[nn.Module]) -> Scores:
        """Equal error rates of the test trials."""
        assert isinstance(training, _VerificationTraining)
        trials, items = training.trials, training.items["test"]
        random = np.random.default_rng(0).random(len(trials))
        speakers = training.speakers
        sources = [tuple({speakers[trial.first], speakers[trial.second]}) for trial in trials]
        scored = [_trial_scores(trials, items, each) for each in training.outputs(heads, "test")]
        return Scores(
            test={"asv": tuple(_error_rate(trials, each) for each in scored)},
            outcomes={"asv": Outcomes.of(sources, _counts(trials, scored))},
            chance={"asv": 100 * equal_error_rate(random, [each.same for each in trials]).rate},
            chance_is="random scores",
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
        SlimvoxError: if a trial names a missing recording, or one that trains the head.
    """
    training = {each.recording.id for each in data.examples if each.split == "train"}
    found = {}
    for trial in data.trials:
        for id in (trial.first, trial.second):
            if id not in data.recordings:
                raise SlimvoxError(f"asv: a trial names the recording {id}, which does not exist")
            if id in training:
                raise SlimvoxError(f"asv: the recording {id} is in train and in a trial of {trial.split}")
            found[id] = data.recordings[id]
    return found


def _embeddings(head: nn.Module, batch: Batch[Any]) -> list[Tensor]:
    """Embeddings (E,) of length 1."""
    return list(F.normalize(batch.through(head), dim=-1).cpu())


def speakers_of(data: VerificationSet) -> dict[str, str]:
    """Speaker of each recording that trials name; the recording itself if its speaker is unknown."""
    labelled = {each.recording.id: each.labels[0] for each in data.examples}
    return {id: each.speaker or labelled.get(id, id) for id, each in data.recordings.items()}


def _trial_scores(
    trials: Sequence[Trial], items: Sequence[Item[Any]], embeddings: Sequence[Tensor]
) -> npt.NDArray[np.float32]:
    """Cosine of each trial."""
    of = {item.id: embedding for item, embedding in zip(items, embeddings, strict=True)}
    first = torch.stack([of[trial.first] for trial in trials])
    second = torch.stack([of[trial.second] for trial in trials])
    scores: npt.NDArray[np.float32] = (first * second).sum(-1).numpy()
    return scores


def _error_rate(trials: Sequence[Trial], scores: npt.NDArray[np.float32]) -> float:
    """Equal error rate in percent."""
    if not np.isfinite(scores).all():
        return float("nan")
    return 100 * equal_error_rate(scores, [trial.same for trial in trials]).rate


def _counts(trials: Sequence[Trial], scored: Sequence[npt.NDArray[np.float32]]) -> list[Counts]:
    """Errors of each seed at the threshold of its equal error rate.

    When the trials change a little, the threshold moves too, so that the rate changes by a weighted mean of the changes
    of both kinds of error at the old threshold. The weight of each kind is the density of the other kind's scores
    there. It is the mean over the seeds, because an example has one size.
    """
    same = np.array([trial.same for trial in trials])
    if not all(np.isfinite(scores).all() for scores in scored):
        return [_equally_weighted(same, scores) for scores in scored]
    thresholds = [equal_error_rate(scores, same).threshold for scores in scored]
    densities = np.array(
        [
            [_density(scores[kind], threshold) for kind in (~same, same)]
            for scores, threshold in zip(scored, thresholds, strict=True)
        ]
    )
    of_same, of_different = np.mean(densities / densities.sum(1, keepdims=True), axis=0)
    sizes = len(same) * np.where(same, of_same / same.sum(), of_different / (~same).sum())
    wrong = [(scores >= threshold) != same for scores, threshold in zip(scored, thresholds, strict=True)]
    return [list(zip((each * sizes).tolist(), sizes.tolist(), strict=True)) for each in wrong]


def _equally_weighted(same: npt.NDArray[np.bool_], scores: npt.NDArray[np.float32]) -> Counts:
    """Errors of one seed, where another has scores that are not finite; both kinds have the same total size."""
    sizes = len(same) / 2 / np.where(same, same.sum(), (~same).sum())
    wrong = np.ones_like(same)
    if np.isfinite(scores).all():
        wrong = (scores >= equal_error_rate(scores, same).threshold) != same
    return list(zip((wrong * sizes).tolist(), sizes.tolist(), strict=True))


def _density(scores: npt.NDArray[np.float32], at: float) -> float:
    """Density of scores at a place, by Gaussian kernels (bandwidth: Silverman's rule)."""
    bandwidth = float(1.06 * max(float(scores.std()), 1e-6) * len(scores) ** -0.2)
    kernels = np.exp(-0.5 * np.square((scores.astype(np.float64) - at) / bandwidth))
    return max(float(np.mean(kernels)) / bandwidth, 1e-12)


def _loss(head: nn.Module, batch: Batch[int]) -> Tensor:
    assert isinstance(head, _TrainedSpeakerHead)
    targets = torch.tensor(batch.targets, device=batch.features.device)
    loss: Tensor = head.classifier(batch.through(head), targets)
    return loss


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
            steps=450,
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
