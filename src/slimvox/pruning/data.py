"""Audio of a run, found, measured and divided into training and held-out audio."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slimvox.audio import (
    SAMPLE_RATE_HZ,
    AudioBatches,
    AudioClip,
    AudioInput,
    AudioScan,
    AudioTable,
    BatchPlan,
    SkipCounter,
    UnreadableAudioError,
    index_audio,
    read_audio,
    source_name,
)
from slimvox.audio.cache import ClipCache
from slimvox.audio.mix import unweighted
from slimvox.audio.overlap import overlapping
from slimvox.audio.recordings import ArchiveMember
from slimvox.pruning.settings import DataSettings
from slimvox.util.errors import SlimvoxError

logger = logging.getLogger("slimvox.pruning")

HELD_OUT_SHARE = 0.1
"""Maximum share of the audio that is held out of training."""
FILES_LOOKED_FOR = 64
"""Number of files that a process looks for if another one listed them."""
HELD_OUT_CACHE_BYTES = 128 * 2**20
"""Memory for decoded held-out audio: 35 minutes."""


@dataclass(frozen=True, kw_only=True)
class RunAudio:
    """The audio of a run."""

    training: AudioTable[AudioClip]
    held_out: AudioTable[AudioClip]
    settings: DataSettings
    seed: int
    fingerprint: str
    skips: SkipCounter
    """Files left out, while measuring or while decoding."""
    named: int
    """Stretches of audio that the sources name, usable or not; `held_out` included, each counted once."""
    sources: npt.NDArray[np.integer]
    """Number of the source that each clip of `training` is from (clips,)."""
    weights: tuple[float, ...] = ()
    """Share of the seconds drawn from each source, relative to the others; empty if sources are not weighted."""
    workers: int | None = None
    """Number of clips that are decoded at a time; None for one per core."""

    @property
    def is_on_disk(self) -> bool:
        """True if all clips are in files; those of Hugging Face data sets are in objects of their library."""
        tables = (self.training, self.held_out)
        return all(each.handle is None for table in tables for each in table.files.containers)

    def check_files(self) -> None:
        """Look for some of the files, which another process may have listed on another machine.

        Raises:
            SlimvoxError: if one is missing or has another size.
        """
        clips = self.training
        for index in np.unique(np.linspace(0, len(clips) - 1, FILES_LOOKED_FOR).astype(int)).tolist():
            path, size = clips[index].path, int(clips.files.size[clips.file[index]])
            if isinstance(path, ArchiveMember):
                path, size = path.archive, -1
            if isinstance(path, Path) and not (path.is_file() and size in (-1, path.stat().st_size)):
                raise SlimvoxError(
                    f"`{path}` is not the file that the first process listed, or is missing: put the same audio in the"
                    " same place on each machine"
                )

    @property
    def training_seconds(self) -> float:
        """Audio to train on."""
        return float(self.training.seconds.sum())

    def batches(self, *, stage: str, start: int, process: int, processes: int) -> AudioBatches:
        """Batches of a stage from step `start` on; the two stages draw theirs independently."""
        plan = BatchPlan(
            self.training.seconds,
            seconds_per_batch=max(self.settings.seconds_per_batch, self.settings.min_seconds),
            min_seconds=self.settings.min_seconds,
            max_seconds=self.settings.max_seconds,
            seed=2 * self.seed + (stage == "finish"),
            groups=self.sources,
            weights=self.weights,
        )
        return AudioBatches(
            self.training,
            plan,
            start=start,
            process=process,
            processes=processes,
            workers=self.workers,
            pad_to_seconds=self.settings.pad_to_seconds,
            skips=self.skips,
        )

    def held_out_waveforms(self) -> HeldOutWaveforms:
        """The held-out clips, cut to the longest crop of training, to be iterated as often as needed."""
        return HeldOutWaveforms(
            self.held_out,
            min_seconds=self.settings.min_seconds,
            max_seconds=self.settings.max_seconds,
            pad_to_seconds=self.settings.pad_to_seconds,
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
        pad_to_seconds: float = 0.0,
        skips: SkipCounter,
        cache_bytes: int = HELD_OUT_CACHE_BYTES,
    ) -> None:
        self._clips, self._skips = clips, skips
        self._min_samples, self._max_seconds = min_seconds * SAMPLE_RATE_HZ, max_seconds
        self._least_samples = round(pad_to_seconds * SAMPLE_RATE_HZ)
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
                # A copy, because the cached waveform must not change.
                yield torch.from_numpy(np.pad(samples, (0, max(0, self._least_samples - len(samples)))))[None]


def gather_audio(
    sources: Sequence[AudioInput], settings: DataSettings, seed: int, held_out: Sequence[AudioInput] = ()
) -> RunAudio:
    """Find and measure the audio, and hold some of it out for measuring.

    Args:
        sources: files, folders, shards, lists, manifests, data sets; a weight is the share of the seconds drawn from a
            source.
        settings: data settings of the recipe.
        seed: decides which clips are held out.
        held_out: held-out audio; if empty, `held_out_seconds` of the sources are held out (at most a tenth). Clips of
            the sources that contain any of it are left out of training.

    Raises:
        SlimvoxError: if nothing usable is left, or in a source with a weight.
    """
    skips = SkipCounter()
    scan = index_audio(sources, min_seconds=settings.min_seconds, skips=skips)
    weights = _weights(sources, scan)
    fingerprint, named = scan.fingerprint, scan.named
    left_out = np.zeros(len(scan.clips), dtype=bool)
    if held_out:
        other = index_audio(held_out, min_seconds=settings.min_seconds, skips=skips)
        named += other.named
        held_out_clips = other.clips
        fingerprint += other.fingerprint
    else:
        left_out[_chosen(scan, settings, seed, weights)] = True
        held_out_clips = scan.clips.taken(np.flatnonzero(left_out))
    left_out |= _shared(scan, held_out_clips, left_out, by_source=bool(weights))
    if weights:
        fingerprint += f" in shares of {', '.join(f'{weight:.6g}' for weight in weights)}"
    return RunAudio(
        training=scan.clips.taken(np.flatnonzero(~left_out)),
        held_out=held_out_clips,
        settings=settings,
        seed=seed,
        fingerprint=fingerprint,
        skips=skips,
        named=named,
        sources=scan.sources[~left_out],
        weights=weights,
    )


def _weights(sources: Sequence[AudioInput], scan: AudioScan) -> tuple[float, ...]:
    """Weights of the sources, 1 for those without one if others have one; empty if none has one."""
    weights = [unweighted(source)[1] for source in sources]
    if not any(weights):
        return ()
    used = np.bincount(scan.sources, minlength=len(sources))
    for source, clips in zip(sources, used, strict=True):
        if not clips:
            raise SlimvoxError(
                f"Nothing in `{source_name(source)}` can be used, and so it cannot have a share in the mix: leave it"
                " out, or see in the log why its files were skipped."
            )
    return tuple(1.0 if weight is None else weight for weight in weights)


def _shared(
    scan: AudioScan, held_out: AudioTable[AudioClip], left_out: npt.NDArray[np.bool_], *, by_source: bool
) -> npt.NDArray[np.bool_]:
    """The clips to leave out of training because they contain held-out audio (clips,), with a warning.

    If nothing would be left to train on, or nothing of a source of a mix (`by_source`), the warning is all.
    """
    shared = overlapping(scan.clips, held_out) & ~left_out
    if not shared.any():
        return shared
    left = np.bincount(scan.sources[~(left_out | shared)], minlength=int(scan.sources.max()) + 1)
    counts = f"{int(shared.sum())} of {len(shared)} clips to train on contain held-out audio"
    if not (left.all() if by_source else left.any()):
        logger.warning(
            "%s and nothing else is there to train on: the distance to the teacher is not that on other audio",
            counts,
        )
        return np.zeros_like(shared)
    logger.warning("%s and are left out of training", counts)
    return shared


def _chosen(scan: AudioScan, settings: DataSettings, seed: int, weights: Sequence[float]) -> list[int]:
    """Positions of the clips to hold out: random ones, while they fit; each source of a mix keeps one at least."""
    seconds_left = min(settings.held_out_seconds, HELD_OUT_SHARE * scan.total_seconds)
    groups = scan.sources if weights else np.zeros_like(scan.sources)
    left = np.bincount(groups).tolist()
    lengths = np.minimum(scan.clips.seconds, settings.max_seconds)
    chosen = []
    for index in np.random.default_rng(seed).permutation(len(lengths)).tolist():
        if left[groups[index]] > 1 and lengths[index] <= seconds_left:
            chosen.append(index)
            left[groups[index]] -= 1
            seconds_left -= float(lengths[index])
    return chosen
