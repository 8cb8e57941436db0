"""Storage of features: on disk if they fit, otherwise they are encoded whenever they are read.

    DIR/KEY/features.bin    all frames of all recordings, one after the other: (frames, layers, width)
    DIR/KEY/index.json      which recording is where, and what the features are of

KEY is a hash of the encoder's weights, of the recordings (files, sizes, times of change) and of what was done to the
features. A folder gets its name when it is complete, so that an interruption leaves nothing that could be mistaken for
features. The folders that were used longest ago make room for new ones.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import torch
from torch import Tensor

from slimvox.audio import UnreadableAudioError
from slimvox.evaluation.cache_room import PARTIAL, discard, make_room, remove_stale
from slimvox.evaluation.feature_encoder import FeatureEncoder, Pooling
from slimvox.evaluation.features import Features, Stopwatch, StoredFeatures, StreamedFeatures, skipped_text
from slimvox.evaluation.upstreams import Upstream
from slimvox.evaluation.waveforms import Excerpt, measure_excerpts, read_ahead
from slimvox.util.devices import CPU
from slimvox.util.environment import user_cache
from slimvox.util.errors import SlimvoxError
from slimvox.util.json_files import read_json_object
from slimvox.util.validation import Count, CountOrZero, Positive, build

FORMAT_VERSION = 1
DEFAULT_MAX_BYTES = 8 << 30
BYTES_PER_ROOM = 64 << 20
"""Bytes that are written before room is made for more."""
SHARE_OF_MEMORY = 0.25
"""Share of the available memory that features that are not on disk may use."""


def cache_directory(cache: str | Path) -> Path | None:
    """Folder for features: None for `none`, a folder in the user's cache for `auto`."""
    if str(cache) == "none":
        return None
    if str(cache) == "auto":
        return user_cache() / "features"
    return Path(cache).expanduser()


@dataclass(frozen=True, kw_only=True)
class _Index:
    """The content of index.json."""

    upstream: str
    """Fingerprint of the upstream that computed the features."""
    dtype: Literal["float16", "float32"]
    shape: tuple[Count, Count, Count]
    """(frames, layers, width)."""
    frame_rate_hz: Positive
    skipped: Mapping[str, CountOrZero]
    positions: Mapping[str, Any]
    """First frame and number of frames, by the recording's id."""


@dataclass(kw_only=True)
class FeatureCache:
    """Provides features: from disk, encoded now, or, if they do not fit, encoded whenever they are read."""

    upstream: Upstream
    directory: Path | None
    """Folder of the features; None to keep none on disk."""
    only_if_it_fits: bool = False
    """True to stream features that do not fit; otherwise they are an error."""
    max_bytes: int = DEFAULT_MAX_BYTES
    """Size of all features on disk together, and at most that of those in memory."""
    device: torch.device = CPU
    """Device on which heads are trained on the features."""
    bf16: bool = False
    """True if heads compute in bfloat16."""
    workers: int = 1
    """Threads that decode audio."""
    report: Callable[[int, int], None] | None = None
    """Function called with the number of recordings done and in all, while they are read for the first time."""
    encoding: Stopwatch = field(default_factory=Stopwatch, init=False)
    """Time spent on encoding since the cache was created."""

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
            pooling: `frames` keeps each frame (in float16), `mean` their average over time (float32). It is
                a hundredth of the size, and enough for a head that averages over time without a non-linearity.
            whiten_on: training recordings to measure the whitening on; none for features as they are.

        Raises:
            UnusableResultError: features that are NaN or infinite.
            SlimvoxError: more than fits into the cache, two different recordings of
                one id, or none that can be read.
        """
        check_ids(excerpts, task)
        folder = None
        if self.directory is not None:
            folder = self.directory / self._key(excerpts, pooling, whiten_on)
            known = self._known(folder)
            if known is not None:
                if not self._readable_now(excerpts, known):
                    return known
                discard(folder)
        with self.encoding.running():
            encoder = FeatureEncoder(upstream=self.upstream, task=task, pooling=pooling, workers=self.workers)
            if folder is not None and (
                not self.only_if_it_fits or self.expected_bytes(excerpts, pooling) <= self.room
            ):
                return self._on_disk(folder, excerpts, encoder, whiten_on)
            if whiten_on:
                encoder.fit_whitening(whiten_on)
            if pooling == "mean" and self.expected_bytes(excerpts, pooling) <= self.memory_bytes:
                return self._in_memory(excerpts, encoder)
            return self._streamed(excerpts, encoder)

    def expected_bytes(
        self, excerpts: Sequence[Excerpt], pooling: Pooling, seconds: Mapping[str, float] | None = None
    ) -> int:
        """Size of features on disk; `seconds` are the durations of the recordings by id, if already known."""
        size = self.upstream.layers * self.upstream.width
        if pooling == "mean":
            return 4 * size * len(excerpts)
        known = measure_excerpts(excerpts, self.workers) if seconds is None else seconds
        return 2 * size * round(sum(known[each.id] for each in excerpts) * self.upstream.frame_rate_hz)

    @property
    def room(self) -> int:
        """Bytes that features on disk may take."""
        if self.directory is None:
            return 0
        existing = next(
            each for each in (self.directory, *self.directory.absolute().parents) if each.is_dir()
        )
        return min(self.max_bytes, shutil.disk_usage(existing).free)

    @property
    def memory_bytes(self) -> int:
        """Number of bytes of features that are kept in memory."""
        return min(self.max_bytes, int(SHARE_OF_MEMORY * psutil.virtual_memory().available))

    def _key(self, excerpts: Sequence[Excerpt], pooling: Pooling, whiten_on: Sequence[Excerpt]) -> str:
        described = {
            "format_version": FORMAT_VERSION,
            "upstream": self.upstream.fingerprint,
            "pooling": pooling,
            "recordings": [_identity(excerpt) for excerpt in excerpts],
            "whiten_on": [_identity(excerpt) for excerpt in whiten_on],
        }
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:24]

    def _encoded(
        self, excerpts: Sequence[Excerpt], encoder: FeatureEncoder, skipped: dict[str, int]
    ) -> Iterator[tuple[str, Tensor]]:
        """Features (frames, layers, width) of all recordings that can be read, in their order."""
        for done, waveforms in encoder.waveforms(excerpts, skipped):
            yield from encoder(waveforms).items()
            if self.report is not None:
                self.report(done, len(excerpts))

    def _in_memory(self, excerpts: Sequence[Excerpt], encoder: FeatureEncoder) -> Features:
        skipped: dict[str, int] = {}
        states = dict(self._encoded(excerpts, encoder, skipped))
        _check_some(states, encoder.task, skipped)
        lengths = {id: len(each) for id, each in states.items()}
        return StoredFeatures(
            values=torch.cat([each.cpu() for each in states.values()]).numpy(),
            starts=_starts(lengths),
            lengths=lengths,
            skipped=skipped,
            **self._common(),
        )

    def _streamed(self, excerpts: Sequence[Excerpt], encoder: FeatureEncoder) -> Features:
        """Decode all recordings once, to find unreadable ones and the lengths of the others."""
        skipped: dict[str, int] = {}
        lengths: dict[str, int] = {}
        for done, waveforms in encoder.waveforms(excerpts, skipped):
            for id, waveform in waveforms.items():
                lengths[id] = 1 if encoder.pooling == "mean" else self.upstream.frames(len(waveform))
            if self.report is not None:
                self.report(done, len(excerpts))
        _check_some(lengths, encoder.task, skipped)
        return StreamedFeatures(
            excerpts={each.id: each for each in excerpts if each.id in lengths},
            encoder=encoder,
            memory_bytes=self.memory_bytes,
            lengths=lengths,
            skipped=skipped,
            **self._common(),
        )

    def _common(self) -> dict[str, Any]:
        return {
            "frame_rate_hz": self.upstream.frame_rate_hz,
            "layers": self.upstream.layers,
            "width": self.upstream.width,
            "device": self.device,
            "bf16": self.bf16,
            "encoding": self.encoding,
        }

    def _on_disk(
        self,
        folder: Path,
        excerpts: Sequence[Excerpt],
        encoder: FeatureEncoder,
        whiten_on: Sequence[Excerpt],
    ) -> Features:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(folder.parent)
        partial = Path(tempfile.mkdtemp(prefix=f"{PARTIAL}{folder.name}-", dir=folder.parent))
        try:
            if whiten_on:
                encoder.fit_whitening(whiten_on)
            self._write(partial, excerpts, encoder)
            try:
                partial.rename(folder)
            except OSError:
                if not (folder / "index.json").is_file():
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return self._open(folder)

    def _write(self, partial: Path, excerpts: Sequence[Excerpt], encoder: FeatureEncoder) -> None:
        lengths: dict[str, int] = {}
        skipped: dict[str, int] = {}
        size = next_room = 0
        with (partial / "features.bin").open("wb") as file:
            for id, states in self._encoded(excerpts, encoder, skipped):
                size += states.nbytes
                if size > self.max_bytes:
                    raise SlimvoxError(
                        f"{encoder.task}: the features do not fit into the cache of"
                        f" {self.max_bytes / 2**30:.1f} GiB; raise --cache-gib, or use --cache auto"
                    )
                if size >= next_room:
                    make_room(partial.parent, size, max_bytes=self.max_bytes)
                    next_room = size + BYTES_PER_ROOM
                file.write(states.cpu().numpy().tobytes())
                lengths[id] = len(states)
        _check_some(lengths, encoder.task, skipped)
        make_room(partial.parent, size, max_bytes=self.max_bytes)
        index = _Index(
            upstream=self.upstream.fingerprint,
            dtype="float32" if encoder.pooling == "mean" else "float16",
            shape=(sum(lengths.values()), self.upstream.layers, self.upstream.width),
            frame_rate_hz=self.upstream.frame_rate_hz,
            skipped=skipped,
            positions={id: (start, lengths[id]) for id, start in _starts(lengths).items()},
        )
        (partial / "index.json").write_text(json.dumps(asdict(index)), encoding="utf-8")

    def _known(self, folder: Path) -> Features | None:
        """Existing features; None if there are none, or if they were removed while being opened."""
        if not (folder / "index.json").is_file():
            return None
        try:
            os.utime(folder / "index.json")
            return self._open(folder)
        except (FileNotFoundError, SlimvoxError):
            if folder.is_dir():
                raise
            return None  # another process made room

    def _readable_now(self, excerpts: Sequence[Excerpt], known: Features) -> bool:
        """True if a recording that could not be read before can be read now: permissions or decoders have changed."""
        if "unreadable" not in known.skipped:
            return False
        missing = [each for each in excerpts if each.id not in known]
        for waveforms in read_ahead(([each] for each in missing), self.workers):
            for waveform in waveforms.values():
                if not isinstance(waveform, UnreadableAudioError) and len(waveform) >= self.upstream.shortest:
                    return True
        return False

    def _open(self, folder: Path) -> Features:
        try:
            index: _Index = build(_Index, read_json_object(folder / "index.json"))
            values = np.memmap(folder / "features.bin", dtype=index.dtype, mode="r", shape=index.shape)
            positions = {id: _position(index, id) for id in index.positions}
        except (OSError, ValueError, OverflowError, SlimvoxError) as error:
            raise SlimvoxError(f"the cache in {folder} is damaged ({error}); delete that folder") from error
        if index.upstream != self.upstream.fingerprint:
            raise SlimvoxError(f"the cache in {folder} is of another model; delete that folder")
        return StoredFeatures(
            values=values,
            starts={id: start for id, (start, _) in positions.items()},
            lengths={id: count for id, (_, count) in positions.items()},
            skipped=index.skipped,
            **self._common(),
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


def _starts(lengths: Mapping[str, int]) -> dict[str, int]:
    """First frames of recordings that lie one after the other."""
    return dict(zip(lengths, itertools.accumulate(lengths.values(), initial=0), strict=False))


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


def check_ids(excerpts: Sequence[Excerpt], task: str) -> None:
    """Raise SlimvoxError if two different recordings have one id."""
    seen: dict[str, Excerpt] = {}
    for excerpt in excerpts:
        if seen.setdefault(excerpt.id, excerpt) is not excerpt:
            raise SlimvoxError(f"{task}: two recordings have the id {excerpt.id}")


def _check_some(found: Mapping[str, Any], task: str, skipped: Mapping[str, int]) -> None:
    if not found:
        raise SlimvoxError(f"{task}: none of the recordings can be read{skipped_text(skipped)}")
