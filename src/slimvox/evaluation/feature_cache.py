"""Features on disk: computed once per encoder and set of recordings, read through a memory map.

    DIR/KEY/features.bin    all frames of all recordings, one after the other: (frames, layers, width)
    DIR/KEY/index.json      which recording is where, and what the features are of

KEY is a hash of the encoder's weights, of the recordings (files, sizes, times of change) and of what was done to the
features. A folder gets its name when it is complete, so that an interruption leaves nothing that could be mistaken for
features. The folders that were used longest ago make room for new ones.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from slimvox.audio.decode import FloatArray, UnreadableAudioError
from slimvox.evaluation.cache_room import PARTIAL, make_room, remove_stale
from slimvox.evaluation.features import Features
from slimvox.evaluation.upstreams import Upstream
from slimvox.evaluation.waveforms import Excerpt, read_waveform
from slimvox.evaluation.whitening import Whitening
from slimvox.util.devices import CPU
from slimvox.util.errors import SlimvoxError, UnusableResultError
from slimvox.util.json_files import read_json_object
from slimvox.util.validation import Count, CountOrZero, Positive, build

logger = logging.getLogger("slimvox.evaluation")

FORMAT_VERSION = 1
DEFAULT_MAX_BYTES = 8 << 30
CLIPS_READ_AHEAD = 64
SECONDS_PER_BATCH = 16.0
"""Clips of exactly the same length are encoded together up to this; others alone."""
FRAMES_FOR_WHITENING = 10_000

Pooling = Literal["frames", "mean"]


@dataclass(frozen=True, kw_only=True)
class _Index:
    """The content of index.json."""

    upstream: str
    """Fingerprint of what computed the features."""
    dtype: Literal["float16", "float32"]
    shape: tuple[Count, Count, Count]
    """(frames, layers, width)."""
    frame_rate_hz: Positive
    skipped: Mapping[str, CountOrZero]
    positions: Mapping[str, Any]
    """First frame and number of frames, by the recording's id."""


@dataclass(kw_only=True)
class FeatureCache:
    """Hands out features, from disk where they are there."""

    upstream: Upstream
    directory: Path
    max_bytes: int = DEFAULT_MAX_BYTES
    device: torch.device = CPU
    """Device on which heads are trained on the features."""
    report: Callable[[int, int], None] | None = None
    """Told (done, of how many) recordings while encoding."""
    encode_seconds: float = field(default=0.0, init=False)
    """Time spent encoding since the cache was made."""

    def features(
        self,
        excerpts: Sequence[Excerpt],
        *,
        task: str,
        pooling: Pooling = "frames",
        whiten_on: Sequence[Excerpt] = (),
    ) -> Features:
        """All hidden states of some recordings.

        Args:
            excerpts: the recordings; their ids must differ.
            task: for error messages.
            pooling: `frames` keeps each frame (float16 on disk), `mean` their average over time (float32): what a
                head without non-linearity that averages over time needs to know, at a hundredth of the size.
            whiten_on: training recordings to measure the whitening on; none for features as they are.

        Raises:
            UnusableResultError: features that are NaN or infinite.
            SlimvoxError: more than fits into the cache, two different recordings of
                one id, or none that can be read.
        """
        _check_ids(excerpts, task)
        described = self._description(excerpts, pooling, whiten_on)
        key = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:24]
        folder = self.directory / key
        known = self._known(folder)
        if known is not None:
            return known
        started = time.perf_counter()
        self.directory.mkdir(parents=True, exist_ok=True)
        remove_stale(self.directory)
        partial = Path(tempfile.mkdtemp(prefix=f"{PARTIAL}{key}-", dir=self.directory))
        try:
            whitening = self._whitening(whiten_on, task) if whiten_on else None
            self._write(partial, excerpts, task, pooling, whitening)
            make_room(self.directory, 0, max_bytes=self.max_bytes)
            try:
                partial.rename(folder)
            except OSError:
                if not (folder / "index.json").is_file():
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        seconds = time.perf_counter() - started
        self.encode_seconds += seconds
        return self._open(folder, seconds)

    def _description(
        self, excerpts: Sequence[Excerpt], pooling: Pooling, whiten_on: Sequence[Excerpt]
    ) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "upstream": self.upstream.fingerprint,
            "pooling": pooling,
            "recordings": [_identity(excerpt) for excerpt in excerpts],
            "whiten_on": [_identity(excerpt) for excerpt in whiten_on],
        }

    def _whitening(self, excerpts: Sequence[Excerpt], task: str) -> Whitening:
        """Measured on recordings from all over the set, until there are frames enough."""
        order = torch.randperm(
            len(excerpts), generator=torch.Generator().manual_seed(0), device="cpu"
        ).tolist()
        skipped: dict[str, int] = {}

        def some() -> Iterator[Tensor]:
            frames = 0
            for _, states in self._encoded([excerpts[index] for index in order], task, skipped):
                yield states
                frames += len(states)
                if frames >= FRAMES_FOR_WHITENING:
                    return

        try:
            return Whitening.fit(some())
        except ValueError as error:
            raise SlimvoxError(f"{task}: no training recording can be read") from error

    def _write(
        self,
        folder: Path,
        excerpts: Sequence[Excerpt],
        task: str,
        pooling: Pooling,
        whitening: Whitening | None,
    ) -> None:
        dtype = np.float32 if pooling == "mean" else np.float16
        positions: dict[str, tuple[int, int]] = {}
        skipped: dict[str, int] = {}
        frames = size = 0
        with (folder / "features.bin").open("wb") as file:
            for id, states in self._encoded(excerpts, task, skipped):
                if whitening is not None:
                    states = whitening(states)
                if pooling == "mean":
                    states = states.mean(0, keepdim=True)
                values = states.numpy().astype(dtype)
                if not np.isfinite(values).all():
                    raise SlimvoxError(f"{task}: the features of {id} are too large for half precision")
                size += values.nbytes
                if size > self.max_bytes:
                    raise SlimvoxError(
                        f"{task}: the features do not fit into the cache of {self.max_bytes / 2**30:.1f} GiB;"
                        " raise --cache-gib"
                    )
                make_room(self.directory, size, max_bytes=self.max_bytes)
                file.write(values.tobytes())
                positions[id] = (frames, len(values))
                frames += len(values)
        if not positions:
            raise SlimvoxError(f"{task}: not one recording can be read ({_counts(skipped)})")
        index = _Index(
            upstream=self.upstream.fingerprint,
            dtype="float32" if pooling == "mean" else "float16",
            shape=(frames, self.upstream.layers, self.upstream.width),
            frame_rate_hz=self.upstream.frame_rate_hz,
            skipped=skipped,
            positions=positions,
        )
        (folder / "index.json").write_text(json.dumps(asdict(index)), encoding="utf-8")

    def _encoded(
        self, excerpts: Sequence[Excerpt], task: str, skipped: dict[str, int]
    ) -> Iterator[tuple[str, Tensor]]:
        """Ids with states (frames, layers, width), in the recordings' order."""
        for first in range(0, len(excerpts), CLIPS_READ_AHEAD):
            waveforms: dict[str, FloatArray] = {}
            for excerpt in excerpts[first : first + CLIPS_READ_AHEAD]:
                try:
                    waveform = read_waveform(excerpt)
                except UnreadableAudioError as error:
                    logger.warning("%s: skipped %s: %s", task, excerpt.id, error)
                    skipped[error.reason] = skipped.get(error.reason, 0) + 1
                    continue
                if len(waveform) < self.upstream.shortest:
                    logger.warning("%s: skipped %s: shorter than one frame", task, excerpt.id)
                    skipped["too short"] = skipped.get("too short", 0) + 1
                    continue
                waveforms[excerpt.id] = waveform
            states: dict[str, Tensor] = {}
            for ids in _of_equal_length(waveforms):
                batch = self.upstream(torch.from_numpy(np.stack([waveforms[id] for id in ids])))
                if not torch.isfinite(batch).all():
                    raise UnusableResultError(
                        f"{task}: {self.upstream.name} gives features that are NaN or infinite for {ids[0]}"
                        + (f" or the {len(ids) - 1} encoded with it" if len(ids) > 1 else "")
                    )
                states.update(zip(ids, batch, strict=True))
            for id in waveforms:
                yield id, states[id]
            if self.report is not None:
                self.report(min(first + CLIPS_READ_AHEAD, len(excerpts)), len(excerpts))

    def _known(self, folder: Path) -> Features | None:
        """Features that are there; None if they are not, or went while they were opened."""
        if not (folder / "index.json").is_file():
            return None
        try:
            os.utime(folder / "index.json")
            return self._open(folder, 0.0)
        except (FileNotFoundError, SlimvoxError):
            if folder.is_dir():
                raise
            return None  # another process made room

    def _open(self, folder: Path, encode_seconds: float) -> Features:
        try:
            index: _Index = build(_Index, read_json_object(folder / "index.json"))
            values = np.memmap(folder / "features.bin", dtype=index.dtype, mode="r", shape=index.shape)
            positions = {id: _position(index, id) for id in index.positions}
        except (OSError, ValueError, OverflowError, SlimvoxError) as error:
            raise SlimvoxError(f"the cache in {folder} is damaged ({error}); delete that folder") from error
        if index.upstream != self.upstream.fingerprint:
            raise SlimvoxError(f"the cache in {folder} is of another model; delete that folder")
        return Features(
            values=values,
            positions=positions,
            skipped=index.skipped,
            frame_rate_hz=index.frame_rate_hz,
            encode_seconds=encode_seconds,
            device=self.device,
        )


def _position(index: _Index, id: str) -> tuple[int, int]:
    """First frame and number of frames of a recording, within the file."""
    entry = index.positions[id]
    if not (isinstance(entry, list) and len(entry) == 2 and all(type(each) is int for each in entry)):
        raise ValueError(f"the position of {id} must be two whole numbers")
    start, count = entry
    if not (start >= 0 and 1 <= count <= index.shape[0] - start):
        raise ValueError(f"the position of {id} is outside the file")
    return start, count


def _of_equal_length(waveforms: Mapping[str, FloatArray]) -> Iterator[list[str]]:
    by_length: dict[int, list[str]] = {}
    for id, waveform in waveforms.items():
        by_length.setdefault(len(waveform), []).append(id)
    for length, ids in by_length.items():
        at_once = max(1, int(SECONDS_PER_BATCH * 16_000 / length))
        for first in range(0, len(ids), at_once):
            yield ids[first : first + at_once]


def _identity(excerpt: Excerpt) -> list[Any]:
    clips = []
    for clip in excerpt.recording.clips:
        try:
            status = os.stat(clip.path)
            file: list[Any] = [os.path.abspath(clip.path), status.st_size, status.st_mtime_ns]
        except (OSError, ValueError):
            file = [os.path.abspath(clip.path), None, None]
        channel = [] if clip.file_channel is None else [clip.file_channel]
        clips.append([*file, clip.start_seconds, clip.end_seconds, clip.at_seconds, clip.gain, *channel])
    return [excerpt.id, excerpt.max_seconds, excerpt.recording.channel, clips]


def _check_ids(excerpts: Sequence[Excerpt], task: str) -> None:
    seen: dict[str, Excerpt] = {}
    for excerpt in excerpts:
        if seen.setdefault(excerpt.id, excerpt) is not excerpt:
            raise SlimvoxError(f"{task}: two recordings have the id {excerpt.id}")


def _counts(skipped: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in skipped.items())
