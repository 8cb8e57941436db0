"""Disturbances of the input: other speech, noise, and hidden frames."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Disturbance:
    """Shares of the rows that are disturbed, and the ranges of signal-to-noise ratios in decibels."""

    mixed: float = 0.2
    """Share of rows that another row is added to."""
    mixed_snr: tuple[float, float] = (0.0, 15.0)
    noisy: float = 0.1
    """Share of rows that noise is added to."""
    noisy_snr: tuple[float, float] = (0.0, 25.0)
    masked: float = 0.4
    """Share of rows with hidden frames."""
    masked_frames: float = 0.3
    """Share of the frames hidden in such a row."""
    span: int = 8
    """Frames hidden in one piece."""

    def mix(self, waveforms: Tensor) -> tuple[Tensor, Tensor]:
        """Add other rows and noise.

        Args:
            waveforms: (B, S).

        Returns:
            The disturbed waveforms, and the factor (B,) of the row before (cyclically) in each of them, 0 where it was
            not added.
        """
        count, device = len(waveforms), waveforms.device
        other = waveforms.roll(1, 0)
        power = waveforms.square().mean(-1).clamp(min=1e-8)
        kind = torch.rand(count, device=device)

        def factor(added: Tensor, snr: tuple[float, float]) -> Tensor:
            decibels = torch.empty(count, device=device).uniform_(*snr)
            return (power / added.square().mean(-1).clamp(min=1e-8) * 10 ** (-decibels / 10)).sqrt()

        speech = factor(other, self.mixed_snr) * (kind < self.mixed)
        noise = _noise(waveforms)
        loud = factor(noise, self.noisy_snr) * ((kind >= self.mixed) & (kind < self.mixed + self.noisy))
        return waveforms + speech.unsqueeze(1) * other + loud.unsqueeze(1) * noise, speech

    def hidden_frames(self, shape: tuple[int, int], device: torch.device) -> Tensor:
        """Random spans in a share of the rows: (B, T) bool."""
        starts = torch.rand(shape, device=device) < -math.log(1 - self.masked_frames) / self.span
        spans = (
            F.max_pool1d(F.pad(starts.float(), (self.span - 1, 0)).unsqueeze(1), self.span, 1).squeeze(1) > 0
        )
        return spans & (torch.rand(shape[0], 1, device=device) < self.masked)


def _noise(waveforms: Tensor) -> Tensor:
    """White noise in half of the rows; in the others, noise whose power falls by 3 to 9 dB per octave."""
    count, samples = waveforms.shape
    white = torch.randn(count, samples, device=waveforms.device)
    slope = torch.empty(count, 1, device=waveforms.device).uniform_(0.5, 1.5)
    slope = slope * (torch.rand(count, 1, device=waveforms.device) < 0.5)
    frequency = torch.arange(samples // 2 + 1, device=waveforms.device).clamp(min=samples // 400).float()
    return torch.fft.irfft(torch.fft.rfft(white) * frequency.pow(-slope), samples)
