"""Hidden states of a set of recordings, as the tasks read them: stored, or encoded whenever they are read."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slimvox.audio.decode import UnreadableAudioError
from slimvox.evaluation.feature_encoder import FeatureEncoder
from slimvox.evaluation.waveforms import Excerpt, read_ahead
from slimvox.evaluation.whitening import MEAN_FLOOR, Whitening
from slimvox.util.devices import CPU
from slimvox.util.errors import SlimvoxError


@dataclass
class Stopwatch:
    """Seconds spent within `running`."""

    seconds: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Add the time that passes within this context."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - started


def skipped_text(skipped: Mapping[str, int]) -> str:
    """The end of a message about examples that are missing, such as ` (skipped: 2 too short)`; empty if none is."""
    counts = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
    return f" (skipped: {counts})" if counts else ""


@dataclass(frozen=True, kw_only=True)
class Features(ABC):
    """All hidden states of some recordings."""

    lengths: Mapping[str, int]
    """Number of frames, by the recording's id."""
    skipped: Mapping[str, int]
    """Recordings without features, counted by reason."""
    frame_rate_hz: float
    layers: int
    """Hidden states per frame."""
    width: int
    """Number of dimensions of each hidden state."""
    device: torch.device = CPU
    """Device on which heads are trained."""
    bf16: bool = False
    """True if heads compute in bfloat16 (autocast)."""
    encoding: Stopwatch = field(default_factory=Stopwatch)
    """Time spent on encoding."""

    def __contains__(self, id: object) -> bool:
        return id in self.lengths

    def frames(self, id: str) -> int:
        """Number of frames of a recording."""
        return self.lengths[id]

    @abstractmethod
    def read(self, many: Iterable[Sequence[str]]) -> Generator[list[Tensor], None, None]:
        """Yield, for each list of ids, the states (frames, layers, width) of each recording in float32."""

    def get(self, id: str) -> Tensor:
        """States of one recording: (frames, layers, width) float32."""
        return next(self.read([[id]]))[0]

    def whitened(self, ids: Sequence[str]) -> StoredFeatures:
        """Averages over time, whitened in memory; measured on some of the recordings."""
        stored = self._in_memory()
        whiten = Whitening.fit((stored.get(id) for id in ids), floor=MEAN_FLOOR)
        return stored.with_values(whiten(torch.from_numpy(stored.values)))

    def standardised(self, ids: Sequence[str]) -> StoredFeatures:
        """Averages over time, each dimension scaled in memory by its mean and deviation over some recordings."""
        stored = self._in_memory()
        some = torch.cat([stored.get(id) for id in ids])
        mean, deviation = some.mean(0), some.std(0, correction=0).clamp_min(1e-6)
        return stored.with_values((torch.from_numpy(stored.values) - mean) / deviation)

    def _in_memory(self) -> StoredFeatures:
        """The same features in float32 in memory."""
        states = [parts[0].cpu().numpy() for parts in self.read([id] for id in self.lengths)]
        return StoredFeatures(
            **{name: getattr(self, name) for name in Features.__dataclass_fields__},
            values=np.concatenate(states),
            starts=dict(zip(self.lengths, np.cumsum([0, *map(len, states[:-1])]).tolist(), strict=True)),
        )


@dataclass(frozen=True, kw_only=True)
class StoredFeatures(Features):
    """Features in memory, or in a memory-mapped file."""

    values: np.ndarray[Any, Any]
    """(frames, layers, width)."""
    starts: Mapping[str, int]
    """First frame, by the recording's id."""

    def read(self, many: Iterable[Sequence[str]]) -> Generator[list[Tensor], None, None]:
        """Copy the states."""
        for ids in many:
            yield [torch.from_numpy(np.array(self._slice(id))).float() for id in ids]

    def with_values(self, values: Tensor) -> StoredFeatures:
        """Features with other values for the same frames."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return StoredFeatures(**{**fields, "values": values.numpy()})

    def _slice(self, id: str) -> np.ndarray[Any, Any]:
        start = self.starts[id]
        return self.values[start : start + self.lengths[id]]


@dataclass(frozen=True, kw_only=True)
class StreamedFeatures(Features):
    """Features that are encoded whenever they are read; audio is decoded ahead in threads.

    As many as fit into `memory_bytes` are kept: the first ones that were read.
    """

    excerpts: Mapping[str, Excerpt]
    """Recordings, by id."""
    encoder: FeatureEncoder
    memory_bytes: int
    _kept: dict[str, Tensor] = field(default_factory=dict)

    def read(self, many: Iterable[Sequence[str]]) -> Generator[list[Tensor], None, None]:
        """Encode.

        Raises:
            SlimvoxError: if a file has changed since the features were requested.
        """
        waiting: deque[Sequence[str]] = deque()

        def to_decode() -> Iterator[list[Excerpt]]:
            for ids in many:
                waiting.append(ids)
                yield [self.excerpts[id] for id in dict.fromkeys(ids) if id not in self._kept]

        with closing(read_ahead(to_decode(), self.encoder.workers)) as decoded:
            while True:
                with self.encoding.running():
                    found = next(decoded, None)
                    if found is None:
                        return
                    states = self._encoded(found)
                    ids = waiting.popleft()
                    parts = [states[id] if id in states else self._kept[id].to(self.device) for id in ids]
                yield [part.float() for part in parts]

    def _encoded(self, decoded: Mapping[str, Any]) -> dict[str, Tensor]:
        """States of recordings that were decoded, on the heads' device; kept if there is room."""
        for waveform in decoded.values():
            if isinstance(waveform, UnreadableAudioError):
                raise waveform
        states = self.encoder({id: wave for id, wave in decoded.items() if id not in self._kept})
        room = self.memory_bytes - sum(kept.nbytes for kept in self._kept.values()) if states else 0
        for id, each in states.items():
            if len(each) != self.lengths[id]:
                raise SlimvoxError(
                    f"{self.excerpts[id].recording.clips[0].path} changed during the evaluation"
                )
            if each.nbytes <= room:
                self._kept[id] = each.cpu()
                room -= each.nbytes
        return {id: each.to(self.device) for id, each in states.items()}
