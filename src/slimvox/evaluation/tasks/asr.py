"""ASR: characters by a BLSTM and CTC, decoded greedily without a language model; word error rate (mini: character)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from slimvox.evaluation.examples import ExampleSet, TranscribedExample
from slimvox.evaluation.manifests import transcribed
from slimvox.evaluation.metrics.error_rates import character_edits, character_error_rate, word_edits
from slimvox.evaluation.outcomes import Counts
from slimvox.evaluation.protocols import MINI_RECOGNITION, OFFICIAL_LEARNING_RATES, RecognitionProtocol
from slimvox.evaluation.readers.librispeech import read_librispeech_words
from slimvox.evaluation.tasks.base import Metric
from slimvox.evaluation.tasks.ctc import CTCTask, Symbols


class SpeechRecognition(CTCTask[ExampleSet[TranscribedExample], RecognitionProtocol]):
    """Speech recognition; the space between words is a symbol like any other."""

    dev_metric = ("cer", -1.0)

    def symbols(self, example: TranscribedExample, protocol: RecognitionProtocol) -> Symbols:
        """Characters, including spaces."""
        return tuple(" ".join(example.text.split()))

    def counted(
        self, references: Sequence[Symbols], guesses: Sequence[Symbols], protocol: RecognitionProtocol
    ) -> dict[str, Counts]:
        """Edits of words and of characters; the metric is that of the protocol's unit."""
        texts = _texts(references), _texts(guesses)
        edits = {"test_wer": word_edits(*texts), "test_cer": character_edits(*texts)}
        return {"asr": edits["test_wer" if protocol.unit == "word" else "test_cer"], **edits}

    def dev_score(
        self, references: Sequence[Symbols], guesses: Sequence[Symbols], protocol: RecognitionProtocol
    ) -> float:
        """Minus the character error rate."""
        return -100 * character_error_rate(_texts(references), _texts(guesses))

    def title_of(self, metric: str, protocol: RecognitionProtocol) -> str | None:
        """Title of the metric for the protocol's unit."""
        return "WER" if protocol.unit == "word" else "CER"


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
