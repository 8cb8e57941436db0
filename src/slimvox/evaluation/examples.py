"""Examples that readers of data produce and tasks consume: recordings with their labels, one kind per kind of task.

| kind | tasks |
|---|---|
| `TranscribedExample` | PR, ASR |
| `LabelledExample` | KS, SID, IC, ER |
| `SlotExample` | SF |
| `LabelledExample` (speakers) and `Trial` in a `VerificationSet` | ASV |
| `ConversationExample` | SD |
| `QuerySearch` | QbE |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Literal, TypeVar

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")

ABSENT_AT_DEFAULT = "absent at default"
"""Metadata of fields that were added later: defaults are left out, so that earlier results stay comparable."""

Example_co = TypeVar("Example_co", covariant=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """A file, or a part of it, at its place in a recording."""

    path: Path
    start_seconds: float = 0.0
    """Start within the file, in seconds."""
    end_seconds: float | None = None
    """End within the file, in seconds; None for the end of the file."""
    at_seconds: float = 0.0
    """Start within the recording, in seconds."""
    gain: float = 1.0
    """Factor by which the samples are multiplied."""
    file_channel: int | None = field(default=None, metadata={ABSENT_AT_DEFAULT: True})
    """Channel of the file, counted from 0; None for the mean of all channels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """A waveform: the sum of its clips, each at its place; nearly always one whole file."""

    id: str
    """Identifier, unique in a data set."""
    clips: tuple[Clip, ...]
    channel: int | None = None
    """Seed of an acoustic channel that is applied, see `slimvox.evaluation.channel`; None for none."""
    speaker: str | None = field(default=None, metadata={ABSENT_AT_DEFAULT: True})
    """Name of the speaker, for intervals; None if unknown."""

    @property
    def sources(self) -> tuple[str, ...]:
        """The speaker, or the recording itself if the speaker is unknown."""
        return (self.speaker or self.id,)

    @staticmethod
    def of_file(
        id: str, path: Path, *, start_seconds: float = 0.0, end_seconds: float | None = None
    ) -> Recording:
        """One file, or the part of it between two times."""
        return Recording(
            id=id, clips=(Clip(path=path, start_seconds=start_seconds, end_seconds=end_seconds),)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TranscribedExample:
    """Example of PR and ASR."""

    recording: Recording
    split: Split
    text: str
    """Symbols (phones) or words, separated by single spaces."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledExample:
    """Example of KS, SID and ER (one label) and of IC (one label per slot, each with a separate classifier)."""

    recording: Recording
    split: Split
    labels: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """A piece of a transcript, in a slot or between slots."""

    text: str
    """Words, separated by single spaces."""
    slot: str | None = None
    """The slot's type, None for words outside any slot."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SlotExample:
    """SF: a transcript in which some words fill slots."""

    recording: Recording
    split: Split
    segments: tuple[Segment, ...]
    """Segments in the order of speech."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """A stretch of time in which a speaker speaks."""

    speaker: str
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversationExample:
    """Example of SD: the turns of all speakers; turns of different speakers may overlap."""

    recording: Recording
    split: Split
    turns: tuple[Turn, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """ASV: is it the same speaker? The two are ids of recordings in the set's `recordings`."""

    first: str
    second: str
    same: bool
    split: Split
    """`dev` (to choose the learning rate) or `test`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QuerySearch:
    """Data of QbE: the spoken queries of one split, the documents to search, and the true occurrences."""

    split: Split
    """`dev` (to choose the layer) or `test`; the documents may be the same in both."""
    queries: tuple[Recording, ...]
    documents: tuple[Recording, ...]
    matches: frozenset[tuple[str, str]]
    """(query id, document id) of all true occurrences."""
    unscored_queries: int = 0
    """Further queries that the score counts as never found, see `metrics.term_weighted_value`."""
    unscored_documents: int = 0
    """Further documents that the score counts as searched without a find."""


@dataclass(frozen=True, kw_only=True)
class ExampleSet(Generic[Example_co]):
    """Result of a reader."""

    name: str
    """Name for reports, such as `LibriSpeech`."""
    examples: tuple[Example_co, ...]
    label_names: tuple[str, ...] = ()
    """Names of the entries of `LabelledExample.labels`, such as (action, object, location)."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Number of skipped recordings, by reason."""


@dataclass(frozen=True, kw_only=True)
class VerificationSet(ExampleSet[LabelledExample]):
    """ASV: training utterances by speaker, and trials.

    `examples` are labelled by their speaker; those of the training split train the head.
    """

    recordings: Mapping[str, Recording] = field(default_factory=dict)
    """All recordings that the trials name, by id."""
    trials: tuple[Trial, ...] = ()
