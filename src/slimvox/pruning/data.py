"""Audio of a run: found, measured, and divided into training and held-out audio."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from slimvox.audio import (
    SAMPLE_RATE_HZ,
    AudioBatches,
    AudioClip,
    AudioInput,
    BatchPlan,
    SkipCounter,
    UnreadableAudioError,
    find_audio,
    read_audio,
    scan_audio,
)
from slimvox.audio.cache import ClipCache
from slimvox.pruning.recipe import DataSettings

logger = logging.getLogger("slimvox.pruning")

HELD_OUT_SHARE = 0.1
"""Maximum share of the audio that is held out of training."""
HELD_OUT_CACHE_BYTES = 128 * 2**20
"""Memory for decoded held-out audio: 35 minutes."""


@dataclass(frozen=True, kw_only=True)
class RunAudio:
    """The audio of a run."""

    training: tuple[AudioClip, ...]
    held_out: tuple[AudioClip, ...]
    settings: DataSettings
    seed: int
    fingerprint: str
    skips: SkipCounter
    """Files left out, when they were measured or when they were decoded."""
    named: int
    """Stretches of audio that the sources name, usable or not; `held_out` included, each counted once."""

    @property
    def training_seconds(self) -> float:
        """Audio to train on."""
        return sum(clip.seconds for clip in self.training)

    def batches(self, *, stage: str, start: int, process: int, processes: int) -> AudioBatches:
        """Batches of a stage from step `start` on; the two stages draw theirs independently."""
        plan = BatchPlan(
            [clip.seconds for clip in self.training],
            seconds_per_batch=max(self.settings.seconds_per_batch, self.settings.min_seconds),
            min_seconds=self.settings.min_seconds,
            max_seconds=self.settings.max_seconds,
            seed=2 * self.seed + (stage == "finish"),
        )
        return AudioBatches(
            self.training, plan, start=start, process=process, processes=processes, skips=self.skips
        )

    def held_out_waveforms(self) -> HeldOutWaveforms:
        """The held-out clips, cut to the longest crop of training, to be iterated as often as needed."""
        return HeldOutWaveforms(
            self.held_out,
            min_seconds=self.settings.min_seconds,
            max_seconds=self.settings.max_seconds,
            skips=self.skips,
        )


class HeldOutWaveforms:
    """Clips as waveforms (1, samples), float32, 16 kHz, decoded each time they are iterated over.

    The first ones that fit in `cache_bytes` are kept in memory. Unreadable ones are counted in `skips` and left out.
    """

    def __init__(
        self,
        clips: Sequence[AudioClip],
        *,
        min_seconds: float,
        max_seconds: float,
        skips: SkipCounter,
        cache_bytes: int = HELD_OUT_CACHE_BYTES,
    ) -> None:
        self._clips, self._skips = clips, skips
        self._min_samples, self._max_seconds = min_seconds * SAMPLE_RATE_HZ, max_seconds
        self._cache = ClipCache(cache_bytes)

    def __iter__(self) -> Iterator[Tensor]:
        for index, clip in enumerate(self._clips):
            samples = self._cache.get(index)
            if samples is None:
                try:
                    samples = read_audio(
                        clip.path,
                        offset_seconds=clip.offset_seconds,
                        seconds=min(clip.seconds, self._max_seconds),
                        channel=clip.channel,
                    )
                except UnreadableAudioError as error:
                    self._skips.add(clip.path, error.reason, error.detail, offset_seconds=clip.offset_seconds)
                    continue
                self._cache.put(index, samples)
            if len(samples) >= self._min_samples:
                # A copy of its own: what is kept must not change.
                yield torch.from_numpy(samples.copy())[None]


def gather_audio(
    sources: Sequence[AudioInput], settings: DataSettings, seed: int, held_out: Sequence[AudioInput] = ()
) -> RunAudio:
    """Find and measure the audio, and hold some of it out for measuring.

    Args:
        sources: files, folders, lists, manifests, data sets.
        settings: of the recipe.
        seed: decides which clips are held out.
        held_out: held-out audio; if empty, `held_out_seconds` of the sources are held out (at most a tenth).

    Raises:
        SlimvoxError: if nothing usable is left.
    """
    skips = SkipCounter()
    found = find_audio(sources)
    scan = scan_audio(found, min_seconds=settings.min_seconds, skips=skips)
    named = len(found)
    clips = list(scan.clips)
    aside: list[AudioClip] = []
    fingerprint = scan.fingerprint
    if held_out:
        found = find_audio(held_out)
        other = scan_audio(found, min_seconds=settings.min_seconds, skips=skips)
        named += len(found)
        aside = list(other.clips)
        fingerprint += other.fingerprint
    else:
        wanted = min(settings.held_out_seconds, HELD_OUT_SHARE * scan.total_seconds)
        chosen: set[int] = set()
        for index in np.random.default_rng(seed).permutation(len(clips)).tolist():
            length = min(clips[index].seconds, settings.max_seconds)
            if len(chosen) < len(clips) - 1 and length <= wanted:
                chosen.add(index)
                wanted -= length
        aside = [clips[index] for index in sorted(chosen)]
        clips = [clip for index, clip in enumerate(clips) if index not in chosen]
    return RunAudio(
        training=tuple(clips),
        held_out=tuple(aside),
        settings=settings,
        seed=seed,
        fingerprint=fingerprint,
        skips=skips,
        named=named,
    )
