"""The audio of a run: found, measured, parted into training and held-out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
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
from slimvox.recipe import DataSettings

logger = logging.getLogger("slimvox.pruning")

HELD_OUT_SHARE = 0.1
"""At most this share of the audio is kept out of training."""


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

    def held_out_waveforms(self) -> list[Tensor]:
        """Each held-out clip as (1, samples), cut to the longest crop of training; unreadable ones are left out."""
        waveforms = []
        for clip in self.held_out:
            seconds = min(clip.seconds, self.settings.max_seconds)
            try:
                samples = read_audio(clip.path, offset_seconds=clip.offset_seconds, seconds=seconds)
            except UnreadableAudioError as error:
                self.skips.add(clip.path, error.reason, error.detail)
                continue
            if len(samples) >= self.settings.min_seconds * SAMPLE_RATE_HZ:
                waveforms.append(torch.from_numpy(samples)[None])
        return waveforms


def gather_audio(
    sources: Sequence[AudioInput], settings: DataSettings, seed: int, held_out: Sequence[AudioInput] = ()
) -> RunAudio:
    """Find and measure the audio, and put some of it aside to measure on.

    Args:
        sources: files, folders, lists, manifests, data sets.
        settings: of the recipe.
        seed: decides which clips are held out.
        held_out: audio to measure on; if empty, `held_out_seconds` of the sources are put aside (at most a tenth).

    Raises:
        SlimvoxError: if nothing usable is left.
    """
    scan = scan_audio(find_audio(sources), min_seconds=settings.min_seconds)
    clips = list(scan.clips)
    skips = SkipCounter()
    for file in scan.skipped_files:
        skips.add(file.path, file.reason, file.detail)
    aside: list[AudioClip] = []
    fingerprint = scan.fingerprint
    if held_out:
        other = scan_audio(find_audio(held_out), min_seconds=settings.min_seconds)
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
    )
