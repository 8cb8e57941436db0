"""Transcription by a Whisper with its own decoder; nothing is trained. Word error rate and real-time factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from slimvox.audio.decode import FloatArray, UnreadableAudioError
from slimvox.evaluation.examples import ExampleSet, TranscribedExample
from slimvox.evaluation.feature_cache import FeatureCache, check_ids
from slimvox.evaluation.manifests import TaskTable
from slimvox.evaluation.metrics.error_rates import word_edits, word_error_rate
from slimvox.evaluation.outcomes import Outcomes
from slimvox.evaluation.protocols import TranscriptionProtocol
from slimvox.evaluation.tasks.base import Metric, Scores, Task, add_counts
from slimvox.evaluation.transcriber import Transcriber, normalizer, transcriber_of
from slimvox.evaluation.upstreams import Upstream, load_upstream
from slimvox.evaluation.waveforms import Excerpt, read_ahead
from slimvox.structures.anatomy import SAMPLE_RATE_HZ
from slimvox.util.errors import SlimvoxError


def transcripts(table: TaskTable) -> ExampleSet[TranscribedExample]:
    """Words of each recording; without a column `text`, another model has to provide them."""
    examples = (
        TranscribedExample(recording=recording, split=split, text=row.get("text", ""))
        for _, row, split, recording in table.rows()
    )
    return ExampleSet(name=table.manifest.stem, examples=tuple(examples))


class Transcription(Task[ExampleSet[TranscribedExample], TranscriptionProtocol]):
    """Transcription of the test clips; the result does not depend on seeds."""

    def run(
        self,
        data: ExampleSet[TranscribedExample],
        cache: FeatureCache,
        protocol: TranscriptionProtocol,
        *,
        seeds: int,
    ) -> Scores:
        """Transcribe the test clips, and count words against their texts or the words of a reference model."""
        model = self._transcriber(cache.upstream, protocol)
        clips = [each for each in data.examples if each.split == "test"]
        if not clips:
            raise SlimvoxError(f"{self.name}: there is no example in test")
        excerpts = [Excerpt(recording=each.recording) for each in clips]
        check_ids(excerpts, self.name)
        heard: dict[str, FloatArray] = {}
        skipped: dict[str, int] = {}
        for found in read_ahead([[each] for each in excerpts], cache.workers):
            for id, waveform in found.items():
                reason = _unusable(waveform, model.window)
                if reason is None:
                    heard[id] = waveform  # type: ignore[assignment]
                else:
                    skipped = add_counts(skipped, {reason: 1})
        words = self._transcribed(model, heard, protocol, cache)
        seconds = {"encoder": model.encoding.seconds, "decoder": model.decoding.seconds}
        texts = {each.recording.id: each.text for each in clips}
        if protocol.reference is not None:
            other = load_upstream(
                protocol.reference,
                device=cache.device.type,
                precision="bf16" if cache.bf16 else "float32",
            )
            texts = self._transcribed(self._transcriber(other, protocol), heard, protocol, cache)
        plain = normalizer(protocol.language, model.directory)
        pairs = {id: (plain(texts[id]), plain(words[id])) for id in heard}
        if any(not reference for reference, _ in pairs.values()):
            skipped = add_counts(skipped, {"no words": sum(not each for each, _ in pairs.values())})
            pairs = {id: pair for id, pair in pairs.items() if pair[0]}
        if not pairs:
            raise SlimvoxError(
                f"{self.name}: no test clip has words to compare with; fill the column `text` of the manifest, or name"
                f" a model whose words count with --set {self.name}.reference=MODEL"
            )
        references, guesses = zip(*pairs.values(), strict=True)
        sources = {each.recording.id: each.recording.sources for each in clips}
        outcomes = Outcomes.of([sources[id] for id in pairs], [word_edits(references, guesses)])
        audio = sum(map(len, heard.values())) / SAMPLE_RATE_HZ
        return Scores(
            test={"transcription": outcomes.scores},
            outcomes={"transcription": outcomes},
            chance={"transcription": 100 * word_error_rate(references, (*guesses[1:], guesses[0]))},
            chance_is="words of other clips",
            counts={"test": len(pairs)},
            skipped=add_counts(data.skipped, skipped),
            details={
                "real_time_factor": sum(seconds.values()) / audio,
                "encoder_real_time_factor": seconds["encoder"] / audio,
                "audio_seconds": audio,
                "window_seconds": model.window / SAMPLE_RATE_HZ,
                "threads": torch.get_num_threads(),
                "words": sum(len(each.split()) for each in references),
                "clips": [
                    {"id": id, "reference": reference, "words": guess}
                    for id, (reference, guess) in pairs.items()
                ],
            },
            fit_seconds=seconds["decoder"],
        )

    def _transcriber(self, upstream: Upstream, protocol: TranscriptionProtocol) -> Transcriber:
        return transcriber_of(
            upstream,
            window_seconds=protocol.window_seconds,
            most_tokens=protocol.most_tokens,
        )

    def _transcribed(
        self,
        model: Transcriber,
        heard: Mapping[str, FloatArray],
        protocol: TranscriptionProtocol,
        cache: FeatureCache,
    ) -> dict[str, str]:
        """Words by the id of each clip, in batches of clips of similar lengths."""
        ids = sorted(heard, key=lambda id: len(heard[id]))
        words: dict[str, str] = {}
        for first in range(0, len(ids), protocol.batch):
            batch: Sequence[Any] = ids[first : first + protocol.batch]
            texts = model([heard[id] for id in batch], protocol.language)
            words.update(zip(batch, texts, strict=True))
            if cache.report is not None:
                cache.report(len(words), len(ids))
        cache.encoding.seconds += model.encoding.seconds
        return words


def _unusable(waveform: FloatArray | UnreadableAudioError, window: int) -> str | None:
    if isinstance(waveform, UnreadableAudioError):
        return waveform.reason
    if not len(waveform):
        return "empty"
    return "longer than the window" if len(waveform) > window else None


TRANSCRIPTION = Transcription(
    name="transcription",
    title="transcription by Whisper",
    metrics=(Metric(name="transcription", title="WER", higher_is_better=False),),
    packages=("jiwer",),
    protocols={"official": TranscriptionProtocol(), "mini": TranscriptionProtocol()},
    read_table=transcripts,
)
