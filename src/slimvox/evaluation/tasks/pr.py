"""PR: phones by two linear maps and CTC; phone error rate."""

from __future__ import annotations

from collections.abc import Sequence

from slimvox.evaluation.examples import ExampleSet, TranscribedExample
from slimvox.evaluation.feature_cache import FeatureCache
from slimvox.evaluation.heads import LinearCTCHead, layer_weights
from slimvox.evaluation.manifests import transcribed
from slimvox.evaluation.metrics.error_rates import phone_error_rate
from slimvox.evaluation.protocols import OFFICIAL_LEARNING_RATES, PhoneProtocol
from slimvox.evaluation.readers.librispeech import read_librispeech_phones
from slimvox.evaluation.tasks.base import Metric, Scores, Task, add_counts
from slimvox.evaluation.tasks.ctc import Sequenced, Symbols, fit_ctc, prepare, read, shuffled
from slimvox.evaluation.waveforms import Excerpt


class PhonemeRecognition(Task[ExampleSet[TranscribedExample], PhoneProtocol]):
    """Phoneme recognition; the symbols of a transcript are its words, separated by spaces."""

    def run(
        self,
        data: ExampleSet[TranscribedExample],
        cache: FeatureCache,
        protocol: PhoneProtocol,
        *,
        seeds: int,
    ) -> Scores:
        """Train heads and score them."""
        examples = [
            Sequenced(
                excerpt=Excerpt(recording=each.recording), split=each.split, symbols=tuple(each.text.split())
            )
            for each in data.examples
        ]
        ready = prepare(self.name, examples, cache, whiten=protocol.whiten)
        swept = fit_ctc(
            self.name,
            ready,
            lambda: LinearCTCHead(
                ready.features.layers,
                ready.features.width,
                protocol.projection,
                ready.alphabet.classes,
                blank_bias=protocol.blank_bias,
            ),
            lambda references, guesses: -percent_wrong(references, guesses),
            protocol,
            seeds=seeds,
        )
        read_off = [read(each.head, ready, "test", protocol.batch) for each in swept.fits]
        references = read_off[0][0]
        return Scores(
            test={"pr": tuple(percent_wrong(*pair) for pair in read_off)},
            chance={"pr": percent_wrong(references, shuffled(references))},
            chance_is="the transcripts of test, shuffled",
            counts=ready.counts,
            skipped=add_counts(data.skipped, ready.skipped),
            chosen={
                "learning_rate": swept.fits[0].learning_rate,
                "dev_per_by_learning_rate": {rate: -score for rate, score in swept.dev_scores.items()},
            },
            details={
                "symbols": len(ready.alphabet.symbols),
                "layer_weights": layer_weights(swept.fits[0].head),
                "frame_rate_hz": ready.features.frame_rate_hz,
            },
            fit_seconds=swept.seconds,
        )


def percent_wrong(references: Sequence[Symbols], guesses: Sequence[Symbols]) -> float:
    """Phone error rate in percent, over all phones."""
    return 100 * phone_error_rate([" ".join(r) for r in references], [" ".join(g) for g in guesses])


PR = PhonemeRecognition(
    name="pr",
    title="phoneme recognition",
    metrics=(Metric(name="pr", title="PER", higher_is_better=False),),
    packages=("jiwer",),
    protocols={
        "official": PhoneProtocol(
            learning_rates=OFFICIAL_LEARNING_RATES, batch=16, accumulation=2, steps=100_000, evaluations=50
        ),
        "mini": PhoneProtocol(
            learning_rates=(3e-3, 1e-2),
            batch=8,
            steps=400,
            evaluations=2,
            schedule="linear",
            whiten=True,
            blank_bias=3.0,
        ),
    },
    read_table=transcribed,
    read_corpus=read_librispeech_phones,
)
