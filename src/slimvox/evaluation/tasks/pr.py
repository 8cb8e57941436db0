"""PR: phones by two linear maps and CTC; phone error rate."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from slimvox.evaluation.examples import ExampleSet, TranscribedExample
from slimvox.evaluation.heads import LinearCTCHead
from slimvox.evaluation.manifests import transcribed
from slimvox.evaluation.metrics.error_rates import word_edits
from slimvox.evaluation.outcomes import Counts, rate
from slimvox.evaluation.protocols import OFFICIAL_LEARNING_RATES, PhoneProtocol
from slimvox.evaluation.readers.librispeech import read_librispeech_phones
from slimvox.evaluation.tasks.base import Metric
from slimvox.evaluation.tasks.ctc import CTCTask, Symbols


class PhonemeRecognition(CTCTask[ExampleSet[TranscribedExample], PhoneProtocol]):
    """Phoneme recognition; the symbols of a transcript are its words, separated by spaces."""

    dev_metric = ("per", -1.0)

    def symbols(self, example: TranscribedExample, protocol: PhoneProtocol) -> Symbols:
        """Phones of an example."""
        return tuple(example.text.split())

    def head(self, layers: int, width: int, classes: int, protocol: PhoneProtocol) -> nn.Module:
        """Build a head of two linear maps."""
        return LinearCTCHead(layers, width, protocol.projection, classes, blank_bias=protocol.blank_bias)

    def counted(
        self, references: Sequence[Symbols], guesses: Sequence[Symbols], protocol: PhoneProtocol
    ) -> dict[str, Counts]:
        """Edits of phones."""
        return {
            "pr": word_edits([" ".join(each) for each in references], [" ".join(each) for each in guesses])
        }

    def dev_score(
        self, references: Sequence[Symbols], guesses: Sequence[Symbols], protocol: PhoneProtocol
    ) -> float:
        """Minus the phone error rate."""
        return -100 * rate(self.counted(references, guesses, protocol)["pr"])


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
