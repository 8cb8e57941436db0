"""The plan of an evaluation: time and memory of each task on this machine. Nothing is written."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from slimvox.evaluation.feature_cache import FeatureCache, check_ids
from slimvox.evaluation.feature_encoder import FeatureEncoder, Pooling
from slimvox.evaluation.features import Features
from slimvox.evaluation.fitting import Training, TrainingProbe
from slimvox.evaluation.suite import EvaluationPlan, feature_cache, prepared
from slimvox.evaluation.tasks import HeadTask, task
from slimvox.evaluation.tasks.qbe import QueryByExample
from slimvox.evaluation.tasks.transcription import Transcription
from slimvox.evaluation.upstreams import Upstream, load_upstream
from slimvox.evaluation.waveforms import Excerpt, measure_excerpts, read_ahead
from slimvox.structures.anatomy import SAMPLE_RATE_HZ
from slimvox.util.errors import SlimvoxError

PROBE_SECONDS = 2.0
"""Time for measuring each of: encoder, decoding, training of a head."""
CLIPS_TO_DECODE = 32


@dataclass(frozen=True, kw_only=True)
class TaskForecast:
    """Time and memory of a task, summed over its folds."""

    task: str
    recordings: int
    unreadable: int
    """Recordings whose length cannot be read from their header."""
    audio_hours: float
    """Length of all recordings that the task encodes."""
    heads: int
    """Heads that are trained: one per learning rate, further seeds and fold."""
    steps: int
    """Steps of each head."""
    feature_bytes: int
    """Size of all features of a fold."""
    place: Literal["disk", "memory", "streamed", "none"]
    """Storage of the features; streamed ones are computed whenever they are read, and transcription needs none."""
    encoded_hours: float
    """Audio that is encoded, as often as it is read."""
    encoding_hours: float
    """Time for decoding and encoding."""
    head_hours: float
    """Time for training and scoring heads; for QbE, for searching; for transcription, for the decoder."""
    stored_hours: float
    """`encoding_hours` if the features were stored."""

    @property
    def hours(self) -> float:
        """Total time."""
        return self.encoding_hours + self.head_hours


def forecast(
    plan: EvaluationPlan,
    *,
    report: Callable[[str], None] = lambda name: None,
    upstream: Upstream | None = None,
) -> Iterator[TaskForecast]:
    """Forecast task by task, from the headers of the audio files and measurements of a few seconds per task.

    Args:
        plan: settings of the evaluation.
        report: called with the name of the task that is measured next.
        upstream: model to evaluate, instead of loading `plan.model`.

    Raises:
        SlimvoxError: as `suite.evaluate`, before it computes anything.
    """
    protocols, sets = prepared(plan)
    if upstream is None:
        upstream = load_upstream(plan.model, device=plan.device, precision=plan.precision)
    for name, folds in sets.items():
        report(name)
        yield _forecast(name, folds, feature_cache(plan, upstream), protocols[name], plan.heads)


def _forecast(
    name: str, folds: Sequence[Any], cache: FeatureCache, protocol: Any, seeds: int
) -> TaskForecast:
    chosen = task(name)
    if isinstance(chosen, Transcription):
        return _transcription(chosen, folds, cache, protocol)
    measured = [_Measured.of(cache) for _ in folds]
    head_seconds, trainings = 0.0, 0
    read_seconds = [0.0] * len(folds)  # seconds of audio that are read after features were asked for
    probe: TrainingProbe | None = None
    for place, (fold, probing) in enumerate(zip(folds, measured, strict=True)):
        if isinstance(chosen, HeadTask):
            training = chosen.prepare(fold, probing, protocol)
            trainings = len(protocol.learning_rates) + seeds - 1
            probe = probe or TrainingProbe.measure(training, seconds=PROBE_SECONDS)
            head_seconds += trainings * probe.total_seconds(training)
            read_seconds[place] = probing.audio_read(training, seeds)
        elif isinstance(chosen, QueryByExample):
            head_seconds += chosen.search_seconds(fold, probing, protocol)
            read_seconds[place] = probing.seconds * (cache.upstream.layers + 1) / 2
        else:
            raise SlimvoxError(f"{name}: a task without a head cannot be planned")
    pace = measured[0].pace()
    # Folds of the same recordings share their features on disk, but not those in memory.
    stored = sum({each.folder: each.seconds for each in measured}.values())
    once = sum(each.seconds for each in measured)
    encoded = {
        "disk": stored,
        "memory": once,
        "streamed": once + max(0.0, sum(read_seconds) - once) * measured[0].share_read_again,
    }[measured[0].place]
    return TaskForecast(
        task=name,
        recordings=len({id for each in measured for id in each.by_id}),
        unreadable=len({id for each in measured for id, seconds in each.by_id.items() if not seconds}),
        audio_hours=sum({id: s for each in measured for id, s in each.by_id.items()}.values()) / 3600,
        heads=trainings * len(folds),
        steps=protocol.steps,
        feature_bytes=max(each.feature_bytes for each in measured),
        place=measured[0].place,
        encoded_hours=encoded / 3600,
        encoding_hours=encoded * pace / 3600,
        head_hours=head_seconds / 3600,
        stored_hours=stored * pace / 3600,
    )


def _transcription(
    chosen: Transcription, folds: Sequence[Any], cache: FeatureCache, protocol: Any
) -> TaskForecast:
    paces = [chosen.measured(fold, cache, protocol, seconds=PROBE_SECONDS) for fold in folds]
    by_id = {id: seconds for each in paces for id, seconds in each.seconds_by_id.items()}
    encoding_hours = sum(each.encoder_seconds for each in paces) / 3600
    return TaskForecast(
        task=chosen.name,
        recordings=len(by_id),
        unreadable=sum(not seconds for seconds in by_id.values()),
        audio_hours=sum(by_id.values()) / 3600,
        heads=0,
        steps=0,
        feature_bytes=0,
        place="none",
        encoded_hours=sum(each.windows_seconds for each in paces) / 3600,
        encoding_hours=encoding_hours,
        head_hours=sum(each.decoder_seconds for each in paces) / 3600,
        stored_hours=encoding_hours,
    )


@dataclass(kw_only=True)
class _Measured(FeatureCache):
    """Provides random features of the right shapes, and measures the time that the real ones would take."""

    excerpts: Sequence[Excerpt] = field(default=(), init=False)
    by_id: dict[str, float] = field(default_factory=dict, init=False)
    """Seconds of audio, by the recording's id."""
    pooling: Pooling = field(default="frames", init=False)
    feature_bytes: int = field(default=0, init=False)
    place: Literal["disk", "memory", "streamed"] = field(default="disk", init=False)
    folder: str = field(default="", init=False)
    """Folder of the features, if they are on disk."""

    @staticmethod
    def of(cache: FeatureCache) -> _Measured:
        """A forecast cache with the settings of a cache."""
        names = [name for name, each in FeatureCache.__dataclass_fields__.items() if each.init]
        return _Measured(**{name: getattr(cache, name) for name in names})

    def features(
        self,
        excerpts: Sequence[Excerpt],
        *,
        task: str,
        pooling: Pooling = "frames",
        whiten_on: Sequence[Excerpt] = (),
    ) -> Features:
        """Random features of recordings whose header can be read."""
        check_ids(excerpts, task)
        self.excerpts, self.pooling = excerpts, pooling
        self.folder = self._key(excerpts, pooling, whiten_on)
        self.by_id = dict(measure_excerpts(excerpts, self.workers))
        self.feature_bytes = self.expected_bytes(excerpts, pooling, self.by_id)
        if self.directory is not None and (not self.only_if_it_fits or self.feature_bytes <= self.room):
            self.place = "disk"
        elif self.feature_bytes <= self.memory_bytes:
            self.place = "memory"
        else:
            self.place = "streamed"
        lengths = {id: self.upstream.frames(round(s * SAMPLE_RATE_HZ)) for id, s in self.by_id.items()}
        lengths = {id: frames if pooling == "frames" else 1 for id, frames in lengths.items() if frames}
        if not lengths:
            raise SlimvoxError(f"{task}: none of the recordings can be read")
        size = (max(lengths.values()), self.upstream.layers, self.upstream.width)
        buffer = torch.randn(size, generator=torch.Generator().manual_seed(0), device="cpu")
        return _RandomFeatures(lengths=lengths, skipped={}, **self._common(), buffer=buffer.to(self.device))

    @property
    def seconds(self) -> float:
        """Seconds of audio of all recordings."""
        return sum(self.by_id.values())

    @property
    def share_read_again(self) -> float:
        """Share of streamed features that are not kept in memory."""
        return max(0.0, 1 - self.memory_bytes / max(1, self.feature_bytes))

    def audio_read(self, training: Training[Any], seeds: int) -> float:
        """Seconds of audio whose features are read while heads of one fold are trained and scored."""
        protocol = training.protocol
        of = {split: [self.by_id[item.id] for item in items] for split, items in training.items.items()}
        batches = protocol.steps * protocol.accumulation * protocol.batch * statistics.fmean(of["train"])
        return seeds * (batches + protocol.evaluations * sum(of["dev"])) + sum(of["test"])

    def pace(self) -> float:
        """Seconds of encoding per second of audio, or of decoding if that is slower."""
        typical = max(self.seconds / len(self.by_id), 2 * self.upstream.shortest / SAMPLE_RATE_HZ)
        encoder = FeatureEncoder(upstream=self.upstream, task="plan", pooling=self.pooling)
        noise = np.random.default_rng(0).standard_normal(round(typical * SAMPLE_RATE_HZ)).astype(np.float32)
        count = max(1, int(16 / typical)) if self.pooling == "mean" else 1
        clips = {str(number): 0.1 * noise for number in range(count)}
        # A GPU is done when its result is on the CPU.
        encoding = _median_seconds(lambda: [each.cpu() for each in encoder(clips).values()], PROBE_SECONDS)
        known = [each for each in self.excerpts if self.by_id[each.id]]
        some = known[:: max(1, len(known) // CLIPS_TO_DECODE)][:CLIPS_TO_DECODE]
        started = time.perf_counter()
        decoded = 0.0
        for excerpt in some:
            list(read_ahead([[excerpt]], 1))
            decoded += self.by_id[excerpt.id]
            if time.perf_counter() - started > PROBE_SECONDS:
                break
        decoding = (time.perf_counter() - started) / max(decoded, 1e-9)
        return max(encoding / (typical * count), decoding / self.workers)


@dataclass(frozen=True, kw_only=True)
class _RandomFeatures(Features):
    buffer: Tensor
    """(frames, layers, width) of the longest recording."""

    def read(self, many: Iterable[Sequence[str]]) -> Generator[list[Tensor], None, None]:
        """The first frames of the buffer, for any recording."""
        for ids in many:
            yield [self.buffer[: self.lengths[id]] for id in ids]

    def whitened(self, ids: Sequence[str]) -> Any:
        """The features unchanged."""
        return self

    def standardised(self, ids: Sequence[str]) -> Any:
        """The features unchanged."""
        return self


def _median_seconds(work: Callable[[], object], seconds: float) -> float:
    """Time of a call, after one that warms up; as many calls as fit, at least one."""
    ends = time.perf_counter() + seconds
    work()
    times: list[float] = []
    while not times or (time.perf_counter() < ends and len(times) < 20):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)
