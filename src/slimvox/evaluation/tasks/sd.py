"""SD: who speaks when, by an LSTM and permutation-invariant cross-entropy; diarization error rate."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimvox.evaluation.examples import ConversationExample, ExampleSet, Turn
from slimvox.evaluation.feature_cache import FeatureCache
from slimvox.evaluation.features import Features
from slimvox.evaluation.fitting import Batch, Item, endless, fit, in_order, sweep
from slimvox.evaluation.heads import DiarizationHead, layer_weights
from slimvox.evaluation.manifests import conversations
from slimvox.evaluation.metrics.diarization import (
    Activity,
    Decision,
    best_decision,
    decide,
    diarization_error_rate,
)
from slimvox.evaluation.protocols import OFFICIAL_LEARNING_RATES, DiarizationProtocol
from slimvox.evaluation.readers.libri2mix import read_libri2mix
from slimvox.evaluation.tasks.base import Metric, Scores, Task, add_counts, check_splits
from slimvox.evaluation.waveforms import Excerpt
from slimvox.util.errors import SlimvoxError


@dataclass(frozen=True, kw_only=True)
class _Probabilities:
    """Output of a head for a split."""

    references: list[Activity]
    guesses: list[npt.NDArray[np.float32]]


class SpeakerDiarization(Task[ExampleSet[ConversationExample], DiarizationProtocol]):
    """Speaker diarization; frames are the encoder's, whatever its rate."""

    def run(
        self,
        data: ExampleSet[ConversationExample],
        cache: FeatureCache,
        protocol: DiarizationProtocol,
        *,
        seeds: int,
    ) -> Scores:
        """Train heads and score them; threshold and median filter are chosen on dev."""
        check_splits(self.name, [each.split for each in data.examples])
        excerpts = [Excerpt(recording=each.recording) for each in data.examples]
        training = [e for e, x in zip(excerpts, data.examples, strict=True) if x.split == "train"]
        features = cache.features(excerpts, task=self.name, whiten_on=training if protocol.whiten else ())
        speakers = max(len({turn.speaker for turn in each.turns}) for each in data.examples)
        if speakers < 2:
            raise SlimvoxError(f"{self.name}: not one recording has two speakers")
        items: dict[str, list[Item[Activity]]] = {"train": [], "dev": [], "test": []}
        for each in data.examples:
            if each.recording.id in features:
                active = activity(
                    each.turns, features.frames(each.recording.id), features.frame_rate_hz, speakers
                )
                items[each.split].append(Item(id=each.recording.id, target=active))
        counts = check_splits(self.name, [split for split, found in items.items() for _ in found])
        swept = sweep(
            lambda rate, seed: fit(
                build=lambda: DiarizationHead(features.layers, features.width, protocol.hidden, speakers),
                batches=lambda generator: endless(features, items["train"], protocol.batch, generator),
                loss=_loss,
                dev_score=lambda head: -self._decided(head, features, items["dev"], protocol)[1],
                protocol=protocol,
                learning_rate=rate,
                seed=seed,
                device=features.device,
            ),
            protocol.learning_rates,
            seeds,
            self.name,
        )
        decisions = [self._decided(each.head, features, items["dev"], protocol)[0] for each in swept.fits]
        rates = []
        for trained, decision in zip(swept.fits, decisions, strict=True):
            said = _probabilities(trained.head, features, items["test"], protocol.batch)
            rates.append(
                100 * diarization_error_rate(said.references, [decide(g, decision) for g in said.guesses])
            )
        return Scores(
            test={"sd": tuple(rates)},
            chance={"sd": 100 * _guessed([item.target for item in items["test"]])},
            chance_is="the better of: one speaker speaks all the time; everybody does",
            counts=counts,
            skipped=add_counts(data.skipped, features.skipped),
            chosen={
                "learning_rate": swept.fits[0].learning_rate,
                "dev_der_by_learning_rate": {rate: -100 * score for rate, score in swept.dev_scores.items()},
                "threshold": [decision.threshold for decision in decisions],
                "median_frames": [decision.median for decision in decisions],
            },
            details={
                "speakers": speakers,
                "layer_weights": layer_weights(swept.fits[0].head),
                "frame_rate_hz": features.frame_rate_hz,
            },
            fit_seconds=swept.seconds,
        )

    def _decided(
        self,
        head: nn.Module,
        features: Features,
        items: Sequence[Item[Activity]],
        protocol: DiarizationProtocol,
    ) -> tuple[Decision, float]:
        """The best threshold and filter, and the error rate they give."""
        said = _probabilities(head, features, items, protocol.batch)
        return best_decision(
            said.references, said.guesses, thresholds=protocol.thresholds, medians=protocol.medians
        )


def activity(turns: Sequence[Turn], frames: int, frame_rate_hz: float, speakers: int) -> Activity:
    """Who speaks in which frame: (frames, speakers); columns in the speakers' order of appearance."""
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
    orders = list(itertools.permutations(range(logits.shape[-1])))
    losses = []
    for row, target, length in zip(logits, targets, lengths.tolist(), strict=True):
        said = row[:length]
        losses.append(
            torch.stack(
                [F.binary_cross_entropy_with_logits(said, target[:, list(order)]) for order in orders]
            ).min()
        )
    return torch.stack(losses).mean()


def _loss(head: nn.Module, batch: Batch[Activity]) -> Tensor:
    targets = [torch.from_numpy(target).float().to(batch.features.device) for target in batch.targets]
    return permutation_invariant_loss(head(batch.features), targets, batch.lengths)


@torch.inference_mode()
def _probabilities(
    head: nn.Module, features: Features, items: Sequence[Item[Activity]], batch_size: int
) -> _Probabilities:
    references, guesses = [], []
    for _, batch in in_order(features, items, batch_size):
        said = head(batch.features).sigmoid().cpu()
        for row, length, target in zip(said, batch.lengths.tolist(), batch.targets, strict=True):
            references.append(target)
            guesses.append(row[:length].numpy())
    return _Probabilities(references=references, guesses=guesses)


def _guessed(references: Sequence[Activity]) -> float:
    """Error rate of knowing nothing."""
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
