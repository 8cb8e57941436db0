"""SF: characters (or words) with a token before and after each slot, by a BLSTM and CTC; slot-type F1, value CER."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from slimvox.evaluation.examples import ExampleSet, Segment, SlotExample
from slimvox.evaluation.feature_cache import FeatureCache
from slimvox.evaluation.heads import RecurrentCTCHead, layer_weights
from slimvox.evaluation.manifests import slots
from slimvox.evaluation.metrics.slots import parse_slots, slot_type_f1, slot_value_cer
from slimvox.evaluation.protocols import MINI_RECOGNITION, OFFICIAL_LEARNING_RATES, RecognitionProtocol
from slimvox.evaluation.readers.audio_snips import read_audio_snips
from slimvox.evaluation.tasks.base import Metric, Scores, Task, add_counts
from slimvox.evaluation.tasks.ctc import Sequenced, Symbols, fit_ctc, prepare, read, shuffled
from slimvox.evaluation.waveforms import Excerpt

Slots = list[tuple[str, str]]


class SlotFilling(Task[ExampleSet[SlotExample], RecognitionProtocol]):
    """Slot filling."""

    def run(
        self, data: ExampleSet[SlotExample], cache: FeatureCache, protocol: RecognitionProtocol, *, seeds: int
    ) -> Scores:
        """Train heads and score them."""
        separator = " " if protocol.written == "word" else ""

        def tagged(sequences: Sequence[Symbols]) -> list[Slots]:
            return [parse_slots(separator.join(symbols)) for symbols in sequences]

        def dev_score(references: Sequence[Symbols], guesses: Sequence[Symbols]) -> float:
            """F1 - CER: both count, as in SUPERB's overall score."""
            wanted, got = tagged(references), tagged(guesses)
            return slot_type_f1(wanted, got) - slot_value_cer(wanted, got)

        examples = [
            Sequenced(
                excerpt=Excerpt(recording=each.recording),
                split=each.split,
                symbols=slot_symbols(each.segments, protocol.written),
            )
            for each in data.examples
        ]
        ready = prepare(self.name, examples, cache, whiten=protocol.whiten, frames_per_step=protocol.stack)
        swept = fit_ctc(
            self.name,
            ready,
            lambda: RecurrentCTCHead(
                ready.features.layers, ready.features.width, ready.alphabet.classes, protocol
            ),
            dev_score,
            protocol,
            seeds=seeds,
        )
        read_off = [read(each.head, ready, "test", protocol.batch) for each in swept.fits]
        pairs = [(tagged(references), tagged(guesses)) for references, guesses in read_off]
        references = read_off[0][0]
        guessed = tagged(shuffled(references))
        return Scores(
            test={
                "sf_f1": tuple(100 * slot_type_f1(*pair) for pair in pairs),
                "sf_cer": tuple(100 * slot_value_cer(*pair) for pair in pairs),
            },
            chance={
                "sf_f1": 100 * slot_type_f1(tagged(references), guessed),
                "sf_cer": 100 * slot_value_cer(tagged(references), guessed),
            },
            chance_is="the transcripts of test, shuffled",
            counts=ready.counts,
            skipped=add_counts(data.skipped, ready.skipped),
            chosen={
                "learning_rate": swept.fits[0].learning_rate,
                "dev_f1_minus_cer_by_learning_rate": swept.dev_scores,
            },
            details={
                "symbols": len(ready.alphabet.symbols),
                "layer_weights": layer_weights(swept.fits[0].head),
                "frame_rate_hz": ready.features.frame_rate_hz,
            },
            fit_seconds=swept.seconds,
        )


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
