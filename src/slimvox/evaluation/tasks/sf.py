"""SF: characters with a token before and after each slot, by a BLSTM and CTC; slot-type F1 and slot-value CER."""

from __future__ import annotations

from collections.abc import Sequence

from slimvox.evaluation.examples import ExampleSet, Segment, SlotExample
from slimvox.evaluation.feature_cache import FeatureCache
from slimvox.evaluation.heads import RecurrentCTCHead, layer_weights
from slimvox.evaluation.metrics.slots import parse_slots, slot_type_f1, slot_value_cer
from slimvox.evaluation.protocols import RecognitionProtocol
from slimvox.evaluation.tasks.base import Metric, Scores, Task, add_counts
from slimvox.evaluation.tasks.ctc import Sequenced, Symbols, fit_ctc, prepare, read, shuffled
from slimvox.evaluation.waveforms import Excerpt

Slots = list[tuple[str, str]]


class SlotFilling(Task[ExampleSet[SlotExample], RecognitionProtocol]):
    """Slot filling."""

    name = "sf"
    title = "slot filling"
    metrics = (
        Metric(name="sf_f1", title="slot F1", higher_is_better=True),
        Metric(name="sf_cer", title="slot CER", higher_is_better=False),
    )

    def run(
        self, data: ExampleSet[SlotExample], cache: FeatureCache, protocol: RecognitionProtocol, *, seeds: int
    ) -> Scores:
        """Train heads and score them."""
        examples = [
            Sequenced(
                excerpt=Excerpt(recording=each.recording),
                split=each.split,
                symbols=slot_symbols(each.segments),
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
            _dev_score,
            protocol,
            seeds=seeds,
        )
        read_off = [read(each.head, ready, "test", protocol.batch) for each in swept.fits]
        pairs = [(_slots(references), _slots(guesses)) for references, guesses in read_off]
        references = read_off[0][0]
        guessed = _slots(shuffled(references))
        return Scores(
            test={
                "sf_f1": tuple(100 * slot_type_f1(*pair) for pair in pairs),
                "sf_cer": tuple(100 * slot_value_cer(*pair) for pair in pairs),
            },
            chance={
                "sf_f1": 100 * slot_type_f1(_slots(references), guessed),
                "sf_cer": 100 * slot_value_cer(_slots(references), guessed),
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


def slot_symbols(segments: Sequence[Segment]) -> Symbols:
    """Characters of all words, with B-SLOT before and E-SLOT after each slot's; all parted by blanks."""
    symbols: list[str] = []
    for segment in segments:
        if symbols:
            symbols.append(" ")
        if segment.slot is None:
            symbols += segment.text
        else:
            symbols += [f"B-{segment.slot}", " ", *segment.text, " ", f"E-{segment.slot}"]
    return tuple(symbols)


def _slots(sequences: Sequence[Symbols]) -> list[Slots]:
    return [parse_slots("".join(symbols)) for symbols in sequences]


def _dev_score(references: Sequence[Symbols], guesses: Sequence[Symbols]) -> float:
    """F1 - CER: both count, as in SUPERB's overall score."""
    wanted, got = _slots(references), _slots(guesses)
    return slot_type_f1(wanted, got) - slot_value_cer(wanted, got)
