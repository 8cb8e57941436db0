"""Computation of features from recordings: decoding, encoding, whitening, pooling and rounding."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from slimvox.audio.decode import FloatArray, UnreadableAudioError
from slimvox.evaluation.upstreams import Upstream
from slimvox.evaluation.waveforms import Excerpt, read_ahead
from slimvox.evaluation.whitening import Whitening
from slimvox.structures.anatomy import SAMPLE_RATE_HZ
from slimvox.util.errors import SlimvoxError, UnusableResultError

logger = logging.getLogger("slimvox.evaluation")

CLIPS_PER_CHUNK = 64
SECONDS_PER_BATCH = 16.0
"""Maximum seconds of clips of exactly the same length that are encoded together."""
FRAMES_FOR_WHITENING = 10_000

Pooling = Literal["frames", "mean"]


@dataclass(kw_only=True)
class FeatureEncoder:
    """Computes the features of recordings."""

    upstream: Upstream
    task: str
    """Name of the task, for messages."""
    pooling: Pooling = "frames"
    workers: int = 1
    """Threads that decode audio."""
    whitening: Whitening | None = None

    @property
    def dtype(self) -> torch.dtype:
        """Precision to which features are rounded: averages are small enough for float32."""
        return torch.float32 if self.pooling == "mean" else torch.float16

    def waveforms(
        self, excerpts: Sequence[Excerpt], skipped: dict[str, int]
    ) -> Iterator[tuple[int, dict[str, FloatArray]]]:
        """Decode recordings, `CLIPS_PER_CHUNK` at a time and some ahead.

        Args:
            excerpts: the recordings.
            skipped: counter of the recordings that are left out, by reason.

        Yields:
            Number of recordings done, and waveforms by id.
        """
        starts = range(0, len(excerpts), CLIPS_PER_CHUNK)
        chunks = (excerpts[first : first + CLIPS_PER_CHUNK] for first in starts)
        with closing(read_ahead(chunks, self.workers)) as decoded:
            for first, chunk in zip(starts, decoded, strict=True):
                usable: dict[str, FloatArray] = {}
                for id, waveform in chunk.items():
                    if isinstance(waveform, UnreadableAudioError):
                        reason, detail = waveform.reason, str(waveform)
                    elif len(waveform) < self.upstream.shortest:
                        reason, detail = "too short", "shorter than one frame"
                    else:
                        usable[id] = waveform
                        continue
                    logger.warning("%s: skipped %s: %s", self.task, id, detail)
                    skipped[reason] = skipped.get(reason, 0) + 1
                yield first + len(chunk), usable

    def __call__(self, waveforms: Mapping[str, FloatArray]) -> dict[str, Tensor]:
        """Features (frames, layers, width) by id, in the order of the waveforms, on the upstream's device.

        Raises:
            UnusableResultError: if a state is NaN or infinite.
            SlimvoxError: if a state is too large for the precision that it is rounded to.
        """
        states: dict[str, Tensor] = {}
        for id, each in self.states(waveforms):
            if self.whitening is not None:
                each = self.whitening(each)
            if self.pooling == "mean":
                each = each.mean(0, keepdim=True)
            states[id] = each.to(self.dtype)
        if states and not torch.stack([each.isfinite().all() for each in states.values()]).all():
            large = next(id for id, each in states.items() if not each.isfinite().all())
            raise SlimvoxError(f"{self.task}: the features of {large} are too large for half precision")
        return {id: states[id] for id in waveforms}

    def states(self, waveforms: Mapping[str, FloatArray]) -> Iterator[tuple[str, Tensor]]:
        """Hidden states (frames, layers, width) as the upstream gives them, in any order."""
        for ids in self._batches(waveforms):
            batch = self.upstream(torch.from_numpy(np.stack([waveforms[id] for id in ids])))
            if not torch.isfinite(batch).all():
                raise UnusableResultError(
                    f"{self.task}: {self.upstream.name} gives features that are NaN or infinite for {ids[0]}"
                    + (f" or the {len(ids) - 1} encoded with it" if len(ids) > 1 else "")
                )
            yield from zip(ids, batch, strict=True)

    def fit_whitening(self, excerpts: Sequence[Excerpt]) -> None:
        """Measure the whitening on recordings from all over the set, until there are enough frames.

        Raises:
            SlimvoxError: if none can be read.
        """
        order = torch.randperm(len(excerpts), generator=torch.Generator().manual_seed(0), device="cpu")
        drawn = [excerpts[index] for index in order.tolist()]

        def some() -> Iterator[Tensor]:
            frames = 0
            for _, waveforms in self.waveforms(drawn, {}):
                states = dict(self.states(waveforms))
                for id in waveforms:
                    yield states[id].cpu()
                    frames += len(states[id])
                    if frames >= FRAMES_FOR_WHITENING:
                        return

        try:
            self.whitening = Whitening.fit(some())
        except ValueError as error:
            raise SlimvoxError(f"{self.task}: no training recording can be read") from error

    def _batches(self, waveforms: Mapping[str, FloatArray]) -> Iterable[list[str]]:
        """Ids of waveforms that are encoded together.

        On the CPU, clips whose frames are kept are encoded one by one. Otherwise the number of clips in a batch would
        change their states in the last bits, and training on streamed features would differ from training on stored
        ones. Averages over time are small enough to be stored in nearly all cases.
        """
        by_length: dict[int, list[str]] = {}
        for id, waveform in waveforms.items():
            by_length.setdefault(len(waveform), []).append(id)
        alone = self.pooling == "frames" and self.upstream.device.type == "cpu"
        for length, ids in by_length.items():
            at_once = 1 if alone else max(1, int(SECONDS_PER_BATCH * SAMPLE_RATE_HZ / length))
            for first in range(0, len(ids), at_once):
                yield ids[first : first + at_once]
