"""SD: activity of each speaker, by an LSTM and permutation-invariant cross-entropy; diarization error rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimvox.evaluation.batches import Batch, Item
from slimvox.evaluation.examples import ConversationExample, ExampleSet, Turn
from slimvox.evaluation.feature_cache import FeatureCache
from slimvox.evaluation.fitting import Training
from slimvox.evaluation.heads import DiarizationHead
from slimvox.evaluation.manifests import conversations
from slimvox.evaluation.metrics.diarization import (
    Activity,
    Decision,
    best_decision,
    decide,
    diarization_error_rate,
    diarization_errors,
)
from slimvox.evaluation.outcomes import Outcomes
from slimvox.evaluation.protocols import OFFICIAL_LEARNING_RATES, DiarizationProtocol
from slimvox.evaluation.readers.libri2mix import read_libri2mix
from slimvox.evaluation.tasks.base import HeadTask, Metric, Scores, check_splits, usable
from slimvox.evaluation.waveforms import Excerpt
from slimvox.util.errors import SlimvoxError


class SpeakerDiarization(HeadTask[ExampleSet[ConversationExample], DiarizationProtocol]):
    """Speaker diarization, at the frame rate of the encoder."""

    def prepare(
        self, data: ExampleSet[ConversationExample], cache: FeatureCache, protocol: DiarizationProtocol
    ) -> Training[Activity]:
        """Get the features and the activity of the speakers."""
        check_splits(self.name, [each.split for each in data.examples])
        excerpts = [Excerpt(recording=each.recording) for each in data.examples]
        training = [e for e, x in zip(excerpts, data.examples, strict=True) if x.split == "train"]
        features = cache.features(excerpts, task=self.name, whiten_on=training if protocol.whiten else ())
        speakers = max(len({turn.speaker for turn in each.turns}) for each in data.examples)
        if speakers < 2:
            raise SlimvoxError(f"{self.name}: no recording has two speakers")
        examples, counts = usable(self.name, data.examples, features)
        items: dict[str, list[Item[Activity]]] = {"train": [], "dev": [], "test": []}
        for each in examples:
            id = each.recording.id
            active = activity(each.turns, features.frames(id), features.frame_rate_hz, speakers)
            speaking = tuple(dict.fromkeys(turn.speaker for turn in each.turns))
            items[each.split].append(Item(id=id, target=active, sources=speaking))
        for split in ("dev", "test"):
            if items[split] and not any(item.target.any() for item in items[split]):
                raise SlimvoxError(
                    f"{self.name}: in {split}, all turns lie beyond the end of their recordings"
                )
        return Training(
            features=features,
            items=items,
            protocol=protocol,
            build=lambda: DiarizationHead(features.layers, features.width, protocol.hidden, speakers),
            loss=_loss,
            read=_probabilities,
            dev_score=lambda probabilities: -_decided(items["dev"], probabilities, protocol)[1],
            dev_metric=("der", -100.0),
            counts=counts,
            skipped=features.skipped,
            details={"speakers": speakers},
        )

    def score(self, training: Training[Activity], heads: Sequence[nn.Module]) -> Scores:
        """Choose threshold and median filter on dev, and score test with them."""
        decisions = [
            _decided(training.items["dev"], each, training.protocol)[0]
            for each in training.outputs(heads, "dev")
        ]
        test = training.items["test"]
        references = [item.target for item in test]
        errors = [
            [
                diarization_errors(reference, decide(guess, decision))
                for reference, guess in zip(references, guesses, strict=True)
            ]
            for guesses, decision in zip(training.outputs(heads, "test"), decisions, strict=True)
        ]
        outcomes = Outcomes.of(
            [item.sources for item in test], [[(each.wrong, each.scored) for each in own] for own in errors]
        )
        return Scores(
            test={"sd": outcomes.scores},
            outcomes={"sd": outcomes},
            chance={"sd": 100 * _guessed(references)},
            chance_is="the better of: one speaker speaks all the time; everybody does",
            chosen={
                "threshold": [decision.threshold for decision in decisions],
                "median_frames": [decision.median for decision in decisions],
            },
        )


def activity(turns: Sequence[Turn], frames: int, frame_rate_hz: float, speakers: int) -> Activity:
    """Activity of the speakers, (frames, speakers), with columns in order of appearance."""
    active = np.zeros((frames, speakers), dtype=np.bool_)
    columns: Mapping[str, int] = {
        name: column for column, name in enumerate(dict.fromkeys(turn.speaker for turn in turns))
    }
    for turn in turns:
        first, last = round(turn.start_seconds * frame_rate_hz), round(turn.end_seconds * frame_rate_hz)
        active[first:last, columns[turn.speaker]] = True
    return active


def permutation_invariant_loss(logits: Tensor, targets: Sequence[Tensor], lengths: Tensor) -> Tensor:
    """Mean over the batch of the least cross-entropy over all orders of the speakers.

    Args:
        logits: (batch, frames, speakers).
        targets: (frames, speakers) each, 0 or 1.
        lengths: (batch,) frames that count.
    """
    from scipy.optimize import linear_sum_assignment

    losses = []
    for row, target, length in zip(logits, targets, lengths.tolist(), strict=True):
        said = row[:length]
        # The cross-entropy of an output x with a speaker y is softplus(x) - x y; only the product depends on the order.
        likeness = (said.detach().double().T @ target.double()).cpu().numpy()
        # Of a head that has diverged, any order does: the loss is not a number.
        outputs, speakers = linear_sum_assignment(np.nan_to_num(likeness), maximize=True)
        losses.append(F.binary_cross_entropy_with_logits(said[:, outputs], target[:, speakers]))
    return torch.stack(losses).mean()


def _loss(head: nn.Module, batch: Batch[Activity]) -> Tensor:
    targets = [torch.from_numpy(target).float().to(batch.features.device) for target in batch.targets]
    return permutation_invariant_loss(batch.through(head), targets, batch.lengths)


def _probabilities(head: nn.Module, batch: Batch[Activity]) -> list[npt.NDArray[np.float32]]:
    """Probability that a speaker speaks: (frames, speakers) each."""
    said = batch.through(head).sigmoid().cpu()
    return [row[:length].numpy() for row, length in zip(said, batch.lengths.tolist(), strict=True)]


def _decided(
    items: Sequence[Item[Activity]], probabilities: Sequence[npt.NDArray[np.float32]], protocol: Any
) -> tuple[Decision, float]:
    """The best threshold and filter, and their error rate."""
    references = [item.target for item in items]
    return best_decision(references, probabilities, thresholds=protocol.thresholds, medians=protocol.medians)


def _guessed(references: Sequence[Activity]) -> float:
    """Chance error rate."""
    rates = []
    for speaking in range(1, references[0].shape[1] + 1):
        guesses = []
        for reference in references:
            guess = np.zeros_like(reference)
            guess[:, :speaking] = True
            guesses.append(guess)
        rates.append(diarization_error_rate(references, guesses))
    return min(rates)


SD = SpeakerDiarization(
    name="sd",
    title="speaker diarization",
    metrics=(Metric(name="sd", title="DER", higher_is_better=False),),
    protocols={
        "official": DiarizationProtocol(
            learning_rates=OFFICIAL_LEARNING_RATES, batch=8, accumulation=4, steps=30_000, evaluations=60
        ),
        "mini": DiarizationProtocol(
            learning_rates=(1e-3, 3e-3),
            batch=8,
            steps=80,
            evaluations=2,
            schedule="linear",
            whiten=True,
            hidden=128,
        ),
    },
    read_table=conversations,
    read_corpus=read_libri2mix,
)
