"""Transcription by a Whisper with its own decoder; nothing is trained. Word error rate and real-time factors."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

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
from slimvox.evaluation.upstreams import Precision, Upstream, load_upstream
from slimvox.evaluation.waveforms import Excerpt, measure_excerpts, read_ahead
from slimvox.structures.anatomy import SAMPLE_RATE_HZ
from slimvox.util.errors import SlimvoxError

TOO_LONG = "longer than the window"
HEADER_TOLERANCE_SECONDS = 1.0
"""Length by which a header may exceed the window before a recording is skipped without being decoded."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Time that transcription takes, extrapolated from a few clips."""

    seconds_by_id: Mapping[str, float]
    """Length of each test clip, by its header; 0 if it cannot be read."""
    windows_seconds: float
    """Length of all windows that are encoded, by all models."""
    encoder_seconds: float
    decoder_seconds: float


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
        models = self._models(cache, protocol)
        model, others = models[0], models[1:]
        clips = self._clips(data)
        texts = {each.recording.id: each.text for each in clips}
        words: dict[str, str] = {}
        samples = 0
        skipped: dict[str, int] = {}
        window = min(each.window for each in models)
        for batch in _batches(self._ordered(clips, cache), window, protocol.batch, cache.workers, skipped):
            samples += sum(map(len, batch.values()))
            words |= zip(batch, model([*batch.values()], protocol.language), strict=True)
            for other in others:
                texts |= zip(batch, other([*batch.values()], protocol.language), strict=True)
            if cache.report is not None:
                cache.report(len(words), len(clips))
        cache.encoding.seconds += sum(each.encoding.seconds for each in models)
        seconds = {"encoder": model.encoding.seconds, "decoder": model.decoding.seconds}
        plain = normalizer(protocol.language, model.directory)
        pairs = {id: (plain(texts[id]), plain(words[id])) for id in texts if id in words}
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
        audio = samples / SAMPLE_RATE_HZ
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

    def measured(
        self,
        data: ExampleSet[TranscribedExample],
        cache: FeatureCache,
        protocol: TranscriptionProtocol,
        *,
        seconds: float,
    ) -> Pace:
        """Transcribe some of the test clips, in batches that grow while time is left.

        Args:
            data: examples of all splits.
            cache: provides the upstream.
            protocol: the settings.
            seconds: time for measuring; one clip is transcribed twice however long that takes.
        """
        models = self._models(cache, protocol)
        window = min(each.window for each in models)
        lengths = self._ordered(self._clips(data), cache)
        known = {each: length for each, length in lengths.items() if 0 < length * SAMPLE_RATE_HZ <= window}
        size = min(protocol.batch, len(known))
        some = dict([*known.items()][len(known) // (2 * size) :: len(known) // size][:size]) if size else {}
        batch = next(_batches(some, window, protocol.batch, cache.workers, {}), {})
        if not batch:
            raise SlimvoxError(f"{self.name}: none of the recordings can be read")
        waveforms = [*batch.values()]
        ends, count, warm = time.perf_counter() + seconds, 1, False
        while True:
            started = time.perf_counter()
            before = [(each.encoding.seconds, each.decoding.seconds) for each in models]
            for model in models:
                # Evenly spread over the lengths, as each count has to stand for all clips.
                model(
                    [waveforms[number * len(waveforms) // count] for number in range(count)],
                    protocol.language,
                )
            taken = time.perf_counter() - started
            if warm and (count == len(waveforms) or time.perf_counter() + 2 * taken > ends):
                break
            count = min(len(waveforms), 2 * count) if warm else 1
            warm = True
        per_clip = len(known) / count
        return Pace(
            seconds_by_id={each.id: length for each, length in lengths.items()},
            windows_seconds=len(known) * sum(each.window for each in models) / SAMPLE_RATE_HZ,
            encoder_seconds=per_clip
            * sum(each.encoding.seconds - old for each, (old, _) in zip(models, before, strict=True)),
            decoder_seconds=per_clip
            * sum(each.decoding.seconds - old for each, (_, old) in zip(models, before, strict=True)),
        )

    def _clips(self, data: ExampleSet[TranscribedExample]) -> list[TranscribedExample]:
        clips = [each for each in data.examples if each.split == "test"]
        if not clips:
            raise SlimvoxError(f"{self.name}: there is no example in test")
        return clips

    def _ordered(self, clips: Sequence[TranscribedExample], cache: FeatureCache) -> dict[Excerpt, float]:
        """Recordings with their seconds, shortest first: clips of a batch should have as many words."""
        excerpts = [Excerpt(recording=each.recording) for each in clips]
        check_ids(excerpts, self.name)
        seconds = measure_excerpts(excerpts, cache.workers)
        return {each: seconds[each.id] for each in sorted(excerpts, key=lambda each: seconds[each.id])}

    def _models(self, cache: FeatureCache, protocol: TranscriptionProtocol) -> list[Transcriber]:
        """The model, and the one whose words count if there is one."""
        upstreams: list[Upstream] = [cache.upstream]
        if protocol.reference is not None:
            precision: Precision = "bf16" if cache.bf16 else "float32"
            upstreams.append(load_upstream(protocol.reference, device=cache.device.type, precision=precision))
        options = {"window_seconds": protocol.window_seconds, "most_tokens": protocol.most_tokens}
        return [transcriber_of(each, **options) for each in upstreams]


def _batches(
    excerpts: Mapping[Excerpt, float], window: int, size: int, workers: int, skipped: dict[str, int]
) -> Iterator[dict[str, FloatArray]]:
    """Waveforms by id, one batch at a time; nothing is decoded while a batch is in use, so that times are undisturbed.

    Args:
        excerpts: recordings, and their seconds by their headers.
        window: maximum number of samples; longer recordings are skipped, and not read if they are much longer.
        size: recordings in a batch.
        workers: threads that decode.
        skipped: recordings left out are counted here, by reason.
    """
    longest = window / SAMPLE_RATE_HZ + HEADER_TOLERANCE_SECONDS
    waiting = [each for each, seconds in excerpts.items() if seconds <= longest]
    if len(waiting) < len(excerpts):
        skipped[TOO_LONG] = len(excerpts) - len(waiting)
    for first in range(0, len(waiting), size):
        batch: dict[str, FloatArray] = {}
        (read,) = read_ahead([waiting[first : first + size]], workers)
        for id, waveform in read.items():
            reason = _unusable(waveform, window)
            if reason is None:
                batch[id] = waveform  # type: ignore[assignment]
            else:
                skipped[reason] = skipped.get(reason, 0) + 1
        if batch:
            yield batch


def _unusable(waveform: FloatArray | UnreadableAudioError, window: int) -> str | None:
    if isinstance(waveform, UnreadableAudioError):
        return waveform.reason
    if not len(waveform):
        return "empty"
    return TOO_LONG if len(waveform) > window else None


TRANSCRIPTION = Transcription(
    name="transcription",
    title="transcription by Whisper",
    metrics=(Metric(name="transcription", title="WER", higher_is_better=False),),
    packages=("jiwer",),
    protocols={"official": TranscriptionProtocol(), "mini": TranscriptionProtocol()},
    read_table=transcripts,
)
