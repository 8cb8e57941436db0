"""SF: characters (or words) with a token before and after each slot, by a BLSTM and CTC; slot-type F1, value CER."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from slimvox.evaluation.examples import ExampleSet, Segment, SlotExample
from slimvox.evaluation.feature_cache import FeatureCache
from slimvox.evaluation.fitting import Training
from slimvox.evaluation.manifests import slots
from slimvox.evaluation.metrics.slots import parse_slots, slot_type_matches, slot_value_edits
from slimvox.evaluation.outcomes import Counts, rate
from slimvox.evaluation.protocols import MINI_RECOGNITION, OFFICIAL_LEARNING_RATES, RecognitionProtocol
from slimvox.evaluation.readers.audio_snips import read_audio_snips
from slimvox.evaluation.tasks.base import Metric
from slimvox.evaluation.tasks.ctc import CTCTask, Symbols
from slimvox.util.errors import SlimvoxError


class SlotFilling(CTCTask[ExampleSet[SlotExample], RecognitionProtocol]):
    """Slot filling."""

    dev_metric = ("f1_minus_cer", 1.0)

    def prepare(
        self, data: ExampleSet[SlotExample], cache: FeatureCache, protocol: RecognitionProtocol
    ) -> Training[Symbols]:
        """Check that there are slots to measure, and get the features."""
        for split in ("dev", "test"):
            own = [each for each in data.examples if each.split == split]
            if own and not any(segment.slot for each in own for segment in each.segments):
                raise SlimvoxError(f"{self.name}: no text in {split} has a slot, such as [size: small]")
        return super().prepare(data, cache, protocol)

    def symbols(self, example: SlotExample, protocol: RecognitionProtocol) -> Symbols:
        """Characters or words, and tokens around each slot."""
        return slot_symbols(example.segments, protocol.written)

    def counted(
        self, references: Sequence[Symbols], guesses: Sequence[Symbols], protocol: RecognitionProtocol
    ) -> dict[str, Counts]:
        """F1 of slot types and edits of slot values."""
        pair = _slots(references, protocol), _slots(guesses, protocol)
        return {"sf_f1": slot_type_matches(*pair), "sf_cer": slot_value_edits(*pair)}

    def dev_score(
        self, references: Sequence[Symbols], guesses: Sequence[Symbols], protocol: RecognitionProtocol
    ) -> float:
        """F1 - CER: both count, as in SUPERB's overall score."""
        counted = self.counted(references, guesses, protocol)
        return rate(counted["sf_f1"]) - rate(counted["sf_cer"])


def _slots(sequences: Sequence[Symbols], protocol: RecognitionProtocol) -> list[list[tuple[str, str]]]:
    separator = " " if protocol.written == "word" else ""
    return [parse_slots(separator.join(symbols)) for symbols in sequences]


def slot_symbols(segments: Sequence[Segment], written: Literal["character", "word"]) -> Symbols:
    """Characters or words of the segments, with B-SLOT before and E-SLOT after each slot's.

    With characters, the space is a symbol too; with words, there is no separator.
    """
    words: list[str] = []
    for segment in segments:
        own = segment.text.split()
        words += own if segment.slot is None else [f"B-{segment.slot}", *own, f"E-{segment.slot}"]
    if written == "word":
        return tuple(words)
    tokens = {f"{side}-{segment.slot}" for segment in segments for side in "BE" if segment.slot}
    symbols: list[str] = []
    for word in words:
        symbols += [" "] if symbols else []
        symbols += [word] if word in tokens else word
    return tuple(symbols)


SF = SlotFilling(
    name="sf",
    title="slot filling",
    metrics=(
        Metric(name="sf_f1", title="slot F1", higher_is_better=True),
        Metric(name="sf_cer", title="slot CER", higher_is_better=False),
    ),
    packages=("jiwer",),
    protocols={
        "official": RecognitionProtocol(
            learning_rates=OFFICIAL_LEARNING_RATES, batch=32, steps=200_000, evaluations=100
        ),
        "mini": dataclasses.replace(MINI_RECOGNITION, steps=400, batch=8, stack=4, written="word"),
    },
    read_table=slots,
    read_corpus=read_audio_snips,
)
