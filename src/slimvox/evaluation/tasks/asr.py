"""ASR: characters by a BLSTM and CTC, read greedily without a language model; word error rate (mini: character)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from slimvox.evaluation.examples import ExampleSet, TranscribedExample
from slimvox.evaluation.feature_cache import FeatureCache
from slimvox.evaluation.heads import RecurrentCTCHead, layer_weights
from slimvox.evaluation.manifests import transcribed
from slimvox.evaluation.metrics.error_rates import character_error_rate, word_error_rate
from slimvox.evaluation.protocols import MINI_RECOGNITION, OFFICIAL_LEARNING_RATES, RecognitionProtocol
from slimvox.evaluation.readers.librispeech import read_librispeech_words
from slimvox.evaluation.tasks.base import Metric, Scores, Task, add_counts
from slimvox.evaluation.tasks.ctc import Sequenced, Symbols, fit_ctc, prepare, read, shuffled
from slimvox.evaluation.waveforms import Excerpt


class SpeechRecognition(Task[ExampleSet[TranscribedExample], RecognitionProtocol]):
    """Speech recognition; a blank is a symbol like any other."""

    def run(
        self,
        data: ExampleSet[TranscribedExample],
        cache: FeatureCache,
        protocol: RecognitionProtocol,
        *,
        seeds: int,
    ) -> Scores:
        """Train heads and score them."""
        examples = [
            Sequenced(
                excerpt=Excerpt(recording=each.recording),
                split=each.split,
                symbols=tuple(" ".join(each.text.split())),
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
            lambda references, guesses: -100 * character_error_rate(_texts(references), _texts(guesses)),
            protocol,
            seeds=seeds,
        )
        read_off = [read(each.head, ready, "test", protocol.batch) for each in swept.fits]
        pairs = [(_texts(references), _texts(guesses)) for references, guesses in read_off]
        references = read_off[0][0]
        error_rate = word_error_rate if protocol.unit == "word" else character_error_rate
        return Scores(
            test={"asr": tuple(100 * error_rate(*pair) for pair in pairs)},
            chance={"asr": 100 * error_rate(_texts(references), _texts(shuffled(references)))},
            chance_is="the transcripts of test, shuffled",
            counts=ready.counts,
            skipped=add_counts(data.skipped, ready.skipped),
            titles={"asr": "WER" if protocol.unit == "word" else "CER"},
            chosen={
                "learning_rate": swept.fits[0].learning_rate,
                "dev_cer_by_learning_rate": {rate: -score for rate, score in swept.dev_scores.items()},
            },
            details={
                "test_wer": [100 * word_error_rate(*pair) for pair in pairs],
                "test_cer": [100 * character_error_rate(*pair) for pair in pairs],
                "symbols": len(ready.alphabet.symbols),
                "layer_weights": layer_weights(swept.fits[0].head),
                "frame_rate_hz": ready.features.frame_rate_hz,
            },
            fit_seconds=swept.seconds,
        )


def _texts(sequences: Sequence[Symbols]) -> list[str]:
    return ["".join(symbols) for symbols in sequences]


ASR = SpeechRecognition(
    name="asr",
    title="speech recognition",
    metrics=(Metric(name="asr", title="WER", higher_is_better=False),),
    packages=("jiwer",),
    protocols={
        "official": RecognitionProtocol(
            learning_rates=OFFICIAL_LEARNING_RATES, batch=32, steps=200_000, evaluations=100
        ),
        "mini": dataclasses.replace(MINI_RECOGNITION, steps=250),
    },
    read_table=transcribed,
    read_corpus=read_librispeech_words,
)
