"""Features to probe: log-mel, or the hidden states of an encoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

from corpus import FIELD, HOP
from slimvox.checkpoint import load

Features = Callable[[Tensor], Tensor]
"""From a waveform (samples,) at 16 kHz to (frames, layers, width) float16, 50 frames a second."""
MEL_BINS = 80


def log_mel() -> Features:
    """80 log-mel energies of 25 ms every 20 ms, so that both kinds of features have the same frames."""
    filters = torch.from_numpy(
        np.asarray(
            mel_filter_bank(
                num_frequency_bins=FIELD // 2 + 1,
                num_mel_filters=MEL_BINS,
                min_frequency=0.0,
                max_frequency=8_000.0,
                sampling_rate=16_000,
                norm="slaney",
                mel_scale="slaney",
            ),
            np.float32,
        )
    )
    window = torch.hann_window(FIELD)

    def features(waveform: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(waveform.unfold(0, FIELD, HOP) * window).abs().square()
        return (spectrum @ filters).clamp(min=1e-8).log().unsqueeze(1).half()

    return features


def encoder_states(model: str | Path) -> Features:
    """All hidden states of a model that `slimvox.load` knows, in inference."""
    encoder = load(model)

    @torch.no_grad()
    def features(waveform: Tensor) -> Tensor:
        states = encoder(waveform.unsqueeze(0)).hidden_states
        return torch.stack([state[0] for state in states], dim=1).half()

    return features


class Whitening:
    """Zero mean, unit variance and no correlation between the dimensions of each layer, measured on training frames.

    A linear probe can express the same without it, but takes many times as many steps to get there. The rotation is
    the one that moves the dimensions least (ZCA), so that layers can still be summed.
    """

    def __init__(self, features: list[Tensor]) -> None:
        frames = torch.cat([part[::4] for part in features])
        self.mean = torch.stack([frames[:, layer].float().mean(0) for layer in range(frames.shape[1])])
        maps = []
        for layer, mean in enumerate(self.mean):
            centred = frames[:, layer].float() - mean
            variances, axes = torch.linalg.eigh(centred.T @ centred / len(centred))
            floor = 1e-3 * variances.mean()
            maps.append(axes @ torch.diag((variances + floor).rsqrt()) @ axes.T)
        self.maps = torch.stack(maps)

    def __call__(self, features: Tensor) -> Tensor:
        """(frames, layers, width), whitened, in bfloat16."""
        return torch.einsum("tlw,lwv->tlv", features.float() - self.mean, self.maps).bfloat16()
