"""Protocols for building and training heads.

Each task has two protocols: `official`, SUPERB's own settings, and `mini`, minutes on two cores.

Both have roughly the same heads, losses and metrics. The differences of `mini` are stated in each task: smaller
hidden layers, fewer steps with a learning rate that falls linearly to zero, whitened features (see
`slimvox.evaluation.whitening`) and a first bias for CTC's blank.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from slimvox.util.errors import SlimvoxError
from slimvox.util.validation import (
    Count,
    CountOrZero,
    Positive,
    PositiveOrZero,
    Range,
    Seconds,
    SecondsOrZero,
    Share,
    parse_value,
)

Size = Annotated[int, Range(at_least=1, at_most=65_536)]
"""Widths and batch sizes: what memory is allocated for."""
Masks = Annotated[int, Range(at_least=0, at_most=1000)]

SuiteName = Literal["mini", "official"]


@dataclass(frozen=True, kw_only=True)
class HeadProtocol:
    """Training settings common to all heads."""

    learning_rates: tuple[Positive, ...]
    """Grid of learning rates; the best on dev is used."""
    batch: Size
    """Number of examples in a batch."""
    accumulation: Size = 1
    """Number of batches per step."""
    steps: Count
    """Number of optimiser steps."""
    evaluations: Count
    """Number of evaluations on dev, evenly spaced over the steps; the best state is kept."""
    optimiser: Literal["adam", "adamw"] = "adam"
    schedule: Literal["constant", "linear"] = "constant"
    """Schedule of the learning rate; `linear` falls to 0 at the last step."""
    gradient_clip: Positive = 1.0
    """Maximum norm of the gradient."""
    whiten: bool = False
    """Whiten the features."""


@dataclass(frozen=True, kw_only=True)
class ClassificationProtocol(HeadProtocol):
    """KS, SID, IC, ER: linear, mean over time, linear."""

    projection: Size = 256
    balanced: bool = False
    """Draw all classes equally often in training."""
    train_seconds: Seconds | None = None
    """Maximum length of training recordings, to which longer ones are cut."""
    standardise: bool = False
    """Bring each dimension of the features to mean 0 and standard deviation 1. Unlike with `whiten`, which includes
    this, correlations stay."""


@dataclass(frozen=True, kw_only=True)
class PhoneProtocol(HeadProtocol):
    """PR: two linear maps and CTC."""

    projection: Size = 256
    blank_bias: float = 0.0
    """Initial value of the blank's bias."""


@dataclass(frozen=True, kw_only=True)
class RecognitionProtocol(HeadProtocol):
    """ASR and SF: linear, BLSTM, linear and CTC."""

    projection: Size = 1024
    hidden: Size = 1024
    """Width of each direction of each layer of the BLSTM."""
    lstm_layers: Annotated[int, Range(at_least=1, at_most=64)] = 2
    dropout: Annotated[float, Range(at_least=0, below=1)] = 0.2
    blank_bias: float = 0.0
    time_masks: Masks = 2
    """SpecAugment in training: number of stretches of frames set to zero."""
    time_mask_frames: CountOrZero = 40
    """SpecAugment: maximum length of such a stretch, in frames."""
    width_masks: Masks = 2
    """SpecAugment: number of stretches of dimensions set to zero."""
    width_mask_share: Share = 0.1
    """SpecAugment: maximum length of such a stretch, as a share of the width."""
    stack: Size = 1
    """Number of frames that are joined into one before the BLSTM."""
    unit: Literal["word", "character"] = "word"
    """Unit of ASR's error rate. With an hour of training data hardly any word is right with any encoder, so `mini`
    counts characters."""
    written: Literal["character", "word"] = "character"
    """Symbols of SF's head, besides the tokens around each slot. A few hundred orders teach the words of a menu, but
    not how to spell, so `mini` has whole words."""


@dataclass(frozen=True, kw_only=True)
class VerificationProtocol(HeadProtocol):
    """ASV: x-vector and additive-margin softmax."""

    projection: Size = 512
    hidden: Size = 512
    """Channels of the first four layers."""
    pooled: Size = 1500
    """Channels of the last, before mean and deviation over time."""
    embedding: Size = 512
    scale: Positive = 30.0
    margin: PositiveOrZero = 0.4
    train_seconds: Seconds | None = 8.0


@dataclass(frozen=True, kw_only=True)
class DiarizationProtocol(HeadProtocol):
    """SD: LSTM and permutation-invariant cross-entropy."""

    hidden: Size = 512
    medians: tuple[Size, ...] = (1, 11)
    """Lengths of the median filter to choose from, in frames (on dev)."""
    thresholds: tuple[Share, ...] = (0.3, 0.4, 0.5, 0.6, 0.7)
    """Candidate thresholds, chosen on dev."""


@dataclass(frozen=True, kw_only=True)
class SearchProtocol(HeadProtocol):
    """QbE: nothing is trained; the layer is chosen on dev."""

    learning_rates: tuple[Positive, ...] = ()
    batch: Size = 64
    """Number of documents in a batch."""
    steps: CountOrZero = 0
    evaluations: CountOrZero = 0
    shortest_query_seconds: SecondsOrZero = 0.1
    """Minimum length of a query; shorter queries score 0 everywhere."""


@dataclass(frozen=True, kw_only=True)
class TranscriptionProtocol(HeadProtocol):
    """Transcription: nothing is trained."""

    learning_rates: tuple[Positive, ...] = ()
    batch: Size = 8
    """Number of clips in a batch."""
    steps: CountOrZero = 0
    evaluations: CountOrZero = 0
    language: str | None = "en"
    """Language that is spoken, as a code; `none` to let the model find it. English words are normalised as Whisper's
    authors do before they are counted, all others by the simpler rules for other languages."""
    reference: str | None = None
    """Model whose words count instead of the column `text`."""
    window_seconds: Seconds | None = None
    """Length to which clips are padded with silence; by default the model's window, 30 s."""
    most_tokens: Count = 224
    """Maximum number of tokens of a clip."""


OFFICIAL_LEARNING_RATES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)

MINI_RECOGNITION = RecognitionProtocol(
    learning_rates=(3e-3, 1e-2),
    batch=8,
    steps=400,
    evaluations=2,
    schedule="linear",
    whiten=True,
    projection=128,
    hidden=128,
    lstm_layers=1,
    blank_bias=3.0,
    stack=2,
    time_mask_frames=20,
    unit="character",
)
"""Settings that ASR and SF share in `mini`."""


def overridden(task: str, protocol: HeadProtocol, overrides: Sequence[str]) -> HeadProtocol:
    """A protocol with some fields changed.

    Args:
        task: name of the task, such as `ks`.
        protocol: settings of the task.
        overrides: TASK.FIELD=VALUE each; those of other tasks are ignored.

    Raises:
        SlimvoxError: if an override does not name a field, or whose value does not fit it.
    """
    for override in overrides:
        path, equals, text = override.partition("=")
        owner, dot, field = path.partition(".")
        if not equals or not dot:
            raise SlimvoxError(
                f"`--set` must be TASK.FIELD=VALUE, such as ks.steps=500, but is {override!r} instead"
            )
        if owner == task:
            protocol = _replaced(protocol, field, text, override)
    return protocol


def _replaced(found: HeadProtocol, field: str, text: str, override: str) -> HeadProtocol:
    hints = typing.get_type_hints(type(found), include_extras=True)
    if field not in hints:
        raise SlimvoxError(f"`--set {override}`: there is no field {field}; there are {', '.join(hints)}")
    try:
        return dataclasses.replace(found, **{field: parse_value(hints[field], text, field)})
    except SlimvoxError as error:
        raise SlimvoxError(f"`--set {override}`: {error}") from error
