"""Hidden states of a set of recordings, as the tasks read them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slimvox.evaluation.whitening import MEAN_FLOOR, Whitening
from slimvox.util.devices import CPU


@dataclass(frozen=True, kw_only=True)
class Features:
    """All hidden states of some recordings."""

    values: np.ndarray[Any, Any]
    """(frames, layers, width)."""
    positions: Mapping[str, tuple[int, int]]
    """First frame and number of frames, by the recording's id."""
    skipped: Mapping[str, int]
    """Recordings without features, counted by reason."""
    frame_rate_hz: float
    encode_seconds: float
    """Time it took; 0 where the cache had them."""
    device: torch.device = CPU
    """Device on which heads are trained; the features are kept on the CPU."""

    def __contains__(self, id: object) -> bool:
        return id in self.positions

    def frames(self, id: str) -> int:
        """Number of frames of a recording."""
        return self.positions[id][1]

    def get(self, id: str) -> Tensor:
        """(frames, layers, width) float32, on the CPU."""
        start, count = self.positions[id]
        return torch.from_numpy(np.array(self.values[start : start + count])).float()

    def whitened(self, ids: Sequence[str]) -> Features:
        """Averages over time, whitened in memory by what those of some recordings are like."""
        whiten = Whitening.fit((self.get(id) for id in ids), floor=MEAN_FLOOR)
        values = whiten(torch.from_numpy(np.array(self.values, dtype=np.float32))).numpy()
        return dataclasses.replace(self, values=values)

    def standardised(self, ids: Sequence[str]) -> Features:
        """Averages over time, each dimension scaled in memory by its mean and deviation over some recordings."""
        some = torch.cat([self.get(id) for id in ids])
        mean, deviation = some.mean(0), some.std(0, correction=0).clamp_min(1e-6)
        values = (torch.from_numpy(np.array(self.values, dtype=np.float32)) - mean) / deviation
        return dataclasses.replace(self, values=values.numpy())

    @property
    def layers(self) -> int:
        """Hidden states per frame."""
        return int(self.values.shape[1])

    @property
    def width(self) -> int:
        """Dimensions of each."""
        return int(self.values.shape[2])
