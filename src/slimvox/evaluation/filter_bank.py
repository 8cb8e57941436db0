"""The baseline: 80 log-mel energies with first and second differences, 100 frames per second, no normalisation.

As the published zero point of SUPERB: 25 ms windows every 10 ms, and regression deltas over two frames to either
side. There is no mean or variance normalisation: it would leave nothing to a head that averages over time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from slimvox.structures.anatomy import SAMPLE_RATE_HZ

MELS = 80
WIDTH = 3 * MELS
FRAME_RATE_HZ = 100.0
WINDOW_SAMPLES = 400
HOP_SAMPLES = 160
FFT_SAMPLES = 512
LOWEST_HZ = 20.0
DELTA_REACH = 2
FLOOR = 1e-10


def filter_bank(waveform: Tensor) -> Tensor:
    """Log-mel energies and their first and second differences.

    Args:
        waveform: (samples,), 16 kHz, at least `WINDOW_SAMPLES` of them.

    Returns:
        (frames, 240): 80 log energies, 80 deltas, 80 delta-deltas; frame f is about 10 f + 12.5 ms.
    """
    windows = waveform.unfold(0, WINDOW_SAMPLES, HOP_SAMPLES)
    windows = windows - windows.mean(-1, keepdim=True)
    before = torch.cat([windows[:, :1], windows[:, :-1]], -1)
    windows = (windows - 0.97 * before) * torch.hann_window(WINDOW_SAMPLES, periodic=False, device="cpu")
    power = torch.fft.rfft(windows, FFT_SAMPLES).abs().square()
    logs = (power @ mel_matrix()).clamp_min(FLOOR).log()
    first = deltas(logs)
    return torch.cat([logs, first, deltas(first)], -1)


def mel_matrix() -> Tensor:
    """Triangular filters, evenly spaced in mel from 20 Hz to 8 kHz: (FFT bins, 80)."""
    bins = _mel(torch.linspace(0, SAMPLE_RATE_HZ / 2, FFT_SAMPLES // 2 + 1, device="cpu"))
    low, high = _mel(torch.tensor([LOWEST_HZ, SAMPLE_RATE_HZ / 2], device="cpu")).tolist()
    edges = torch.linspace(low, high, MELS + 2, device="cpu")
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp_min(0)


def deltas(frames: Tensor) -> Tensor:
    """Slope of the regression line over the frames around each, (frames, dimensions); edges are repeated."""
    padded = F.pad(frames.T.unsqueeze(0), (DELTA_REACH, DELTA_REACH), mode="replicate")[0].T
    count = len(frames)
    total = torch.zeros_like(frames)
    for step in range(1, DELTA_REACH + 1):
        ahead = padded[DELTA_REACH + step : DELTA_REACH + step + count]
        behind = padded[DELTA_REACH - step : DELTA_REACH - step + count]
        total += step * (ahead - behind)
    return total / (2 * sum(step**2 for step in range(1, DELTA_REACH + 1)))


def _mel(hertz: Tensor) -> Tensor:
    return 1127.0 * (1.0 + hertz / 700.0).log()
