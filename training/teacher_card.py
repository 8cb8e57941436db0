"""The model card of the embedded teacher."""

from __future__ import annotations

from typing import Any

TEMPLATE = """---
license: apache-2.0
library_name: transformers
tags: [speech, self-supervised, wavlm]
---

# slimvox's embedded teacher

A small WavLM that comes with slimvox, so that everything can be tried without a download: something real to prune,
evaluate and export. It is far weaker than a published WavLM, which has 16 times its size and heard 10,000 times as much
speech; for anything but trying slimvox out, start from one of those.

## What it is

WavLM architecture (`transformers`' `WavLMModel`): seven convolutions with group norm (64, 96, 128, then four times 192
channels), positional convolution of kernel 64, 12 post-norm Transformer layers of width 192 with 6 heads and 768
feed-forward units, gated relative position bias. {millions:.2f} M parameters, stored as float16. Input: mono, 16 kHz,
not normalised; output: 50 frames a second.

## How it was trained

From scratch: {steps:,} updates in {minutes:.0f} minutes on one NVIDIA H100, {hours_heard:.0f} hours of audio heard
({epochs:.0f} passes over 8.9 hours). Half of the utterances are played faster or slower, other speech or noise is mixed
into three tenths of the input, and spans of frames are hidden in four tenths. For each frame of the undisturbed audio
the model predicts what two trained networks compute from it:

- the encoder of OpenAI's Whisper base (MIT licence): the values of its last, fifth and fourth layer and their clusters
  (500 per layer), from hidden states 12, 10 and 7;
- the speaker encoder of Resemblyzer (Apache 2.0): the vectors of the speakers who are heard, from hidden state 4.

No transcripts or other labels of the data below were used, but Whisper itself was trained on transcribed speech, and
Resemblyzer on speakers' names: the teacher is distilled from them.

| data | hours | licence |
|---|---|---|
| speechocean762, training split (Zhang et al. 2021) | 2.8 | free for any use; Apache 2.0 on its data-set card |
| LibriSpeech excerpts (Panayotov et al. 2015), from Resemblyzer's repository | 1.1 | CC BY 4.0 |
| Picovoice speech-to-intent benchmark | 1.5 | Apache 2.0 |
| Picovoice wake-word benchmark | 1.8 | Apache 2.0 |
| Arabic Speech Commands, 20 keywords (Ghandoura et al. 2021) | 1.7 | CC BY 4.0 |

The audio itself is not shipped. The code and the exact commands are in `training/` of slimvox's repository.

## How good it is

{figures}
## Limits

Nine hours of speech, mostly read or acted, a third of it by Mandarin speakers of English: expect little on
spontaneous or noisy speech, other languages, singing or anything that is not speech. Not meant for identifying people
or judging them.
"""

FIGURES = """Linear probes on frozen features (`training/probe.py`), softmax-weighted over the hidden states:

| probe | 80-dim log-mel | this model |
|---|---|---|
| phone error rate, speechocean762 test split (speakers it has not heard), linear CTC | {log_mel_per:.1%} | {per:.1%} |
| keyword accuracy, wake-word set, mean over time, linear | {log_mel_accuracy:.1%} | {accuracy:.1%} |

The keyword clips, without their labels, were among the training audio.
"""


def model_card(
    *, parameters: int, steps: int, minutes: float, hours_heard: float, probe: dict[str, Any] | None
) -> str:
    """The card as Markdown; `probe` is what `probe.py` wrote, None for a checkpoint that was not measured."""
    figures = "Not measured: an intermediate checkpoint.\n"
    if probe:
        figures = FIGURES.format(
            log_mel_per=probe["log-mel"]["phones"]["test_error_rate"],
            per=probe["encoder"]["phones"]["test_error_rate"],
            log_mel_accuracy=probe["log-mel"]["keywords"]["test_accuracy"],
            accuracy=probe["encoder"]["keywords"]["test_accuracy"],
        )
    return TEMPLATE.format(
        millions=parameters / 1e6,
        steps=steps,
        minutes=minutes,
        hours_heard=hours_heard,
        epochs=hours_heard / 8.9,
        figures=figures,
    )
