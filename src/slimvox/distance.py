"""How far a student's hidden states are from its teacher's."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from slimvox.anatomy import SAMPLE_RATE_HZ
from slimvox.encoder import SpeechEncoder


@dataclass(frozen=True, kw_only=True)
class Distance:
    """Distance between two encoders, over all hidden states of some audio; no learned map in between."""

    relative_error: float
    """Squared error over the teacher's variance within clips, mean over layers: 0 is a perfect copy, 1 no better than
    each clip's mean."""
    cosine: float
    """1 - cosine similarity per frame, mean over layers."""
    seconds: float
    """Audio it was measured on."""


@dataclass(frozen=True, kw_only=True)
class StateDistances:
    """The same, hidden state by hidden state: what enters the first layer, what leaves it, and so on."""

    relative_errors: tuple[float, ...]
    cosines: tuple[float, ...]
    seconds: float

    @property
    def mean(self) -> Distance:
        """Over the hidden states."""
        return Distance(
            relative_error=statistics.fmean(self.relative_errors),
            cosine=statistics.fmean(self.cosines),
            seconds=self.seconds,
        )


def hidden_state_distance(
    teacher: SpeechEncoder, student: SpeechEncoder, waveforms: Iterable[Tensor]
) -> Distance | None:
    """Compare two encoders on audio; None if there is none.

    Args:
        teacher: gives the states to be matched.
        student: gives as many hidden states of the same width.
        waveforms: tensors (batch, samples), 16 kHz, without padding.
    """
    distances = hidden_state_distances(teacher, student, waveforms)
    return None if distances is None else distances.mean


@torch.no_grad()
def hidden_state_distances(
    teacher: SpeechEncoder, student: SpeechEncoder, waveforms: Iterable[Tensor]
) -> StateDistances | None:
    """`hidden_state_distance` for each hidden state."""
    device = next(student.parameters()).device
    errors: Tensor | float = 0.0
    variances: Tensor | float = 0.0
    cosines: Tensor | float = 0.0
    seconds, frames = 0.0, 0
    for batch in waveforms:
        wanted = torch.stack(teacher(batch.to(device)).hidden_states).float()
        got = torch.stack(student(batch.to(device)).hidden_states).float()
        errors = errors + (got - wanted).square().sum((1, 2, 3))
        variances = variances + (wanted - wanted.mean((1, 2), keepdim=True)).square().sum((1, 2, 3))
        cosines = cosines + (1 - F.cosine_similarity(got, wanted, dim=-1)).sum((1, 2))
        frames += batch.shape[0] * wanted.shape[2]
        seconds += batch.numel() / SAMPLE_RATE_HZ
    if not frames:
        return None
    assert isinstance(errors, Tensor) and isinstance(cosines, Tensor)
    return StateDistances(
        relative_errors=tuple((errors / variances).tolist()),
        cosines=tuple((cosines / frames).tolist()),
        seconds=seconds,
    )
