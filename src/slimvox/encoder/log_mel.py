"""Whisper's front end: a log-mel spectrogram, padded convolutions, and a table of positions.

Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", section 2.2.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimvox.encoder.convolution import ConvLayer, KeptChannels
from slimvox.structures.anatomy import MEL_HOP, MEL_WINDOW, SAMPLE_RATE_HZ, EncoderAnatomy

FLOOR = 1e-10
"""Minimum energy of a mel bin."""
RANGE = 8.0
"""Powers of ten below the loudest bin of a clip at which the spectrogram is cut off."""


class LogMel(nn.Module):
    """The log-mel spectrogram of `transformers`' `WhisperFeatureExtractor`: 100 windows per second, in float32 or
    wider.

    It has no weights. It uses windows of 25 ms (Hann), Slaney's mel filters, the decimal logarithm, a cut-off at 80 dB
    below the loudest bin of the clip, and the scale (x + 4) / 4.
    """

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, waveforms: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Waveforms (batch, samples) to (batch, bins, samples // 160).

        With a mask, each clip is extended by its mirror image at its own end, as it is at its start, and the loudest
        bin is determined from its own bins only. The output for padding is 0, the value with which the convolutions are
        padded.
        """
        with torch.autocast(waveforms.device.type, enabled=False):
            waveforms = waveforms.to(torch.promote_types(waveforms.dtype, torch.float32))
            window, filters = mel_constants(self.bins, waveforms.dtype, waveforms.device)
            spectrum = torch.stft(
                mirrored(waveforms, attention_mask),
                MEL_WINDOW,
                MEL_HOP,
                window=window,
                center=False,
                return_complex=True,
            )
            power = spectrum[..., :-1].abs().square()
            return scaled_logarithm(filters @ power, window_mask(attention_mask, power.shape[-1]))


def mirrored(waveforms: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Waveforms (batch, samples), extended by half a window of their mirror image at both ends of each clip."""
    half = MEL_WINDOW // 2
    if attention_mask is None:
        return F.pad(waveforms.unsqueeze(1), (half, half), mode="reflect").squeeze(1)
    samples = waveforms.shape[1]
    waveforms = waveforms * attention_mask
    last = attention_mask.long().sum(-1, keepdim=True) - 1
    place = torch.arange(-half, samples + half, device=waveforms.device).abs().unsqueeze(0)
    place = torch.where(place > last, 2 * last - place, place).clamp(0, samples - 1)
    return waveforms.gather(1, place)


def window_mask(attention_mask: Tensor | None, windows: int) -> Tensor | None:
    """Mask of the windows that are not padding, (batch, 1, windows) bool."""
    if attention_mask is None:
        return None
    counts = attention_mask.long().sum(-1, keepdim=True) // MEL_HOP
    return (torch.arange(windows, device=attention_mask.device) < counts).unsqueeze(1)


def scaled_logarithm(mel: Tensor, kept: Tensor | None) -> Tensor:
    """Logarithm, cut-off and scale of mel energies (batch, bins, windows); `kept` is that of `window_mask`."""
    logarithm = mel.clamp(min=FLOOR).log10()
    counted = logarithm if kept is None else logarithm.masked_fill(~kept, math.log10(FLOOR))
    scaled = (torch.maximum(logarithm, counted.amax((1, 2), keepdim=True) - RANGE) + 4.0) / 4.0
    return scaled if kept is None else scaled * kept


@lru_cache(maxsize=16)
def mel_constants(bins: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Hann window (400,) and mel filters (bins, 201)."""
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(
        num_frequency_bins=1 + MEL_WINDOW // 2,
        num_mel_filters=bins,
        min_frequency=0.0,
        max_frequency=SAMPLE_RATE_HZ / 2,
        sampling_rate=SAMPLE_RATE_HZ,
        norm="slaney",
        mel_scale="slaney",
    )
    with torch.inference_mode(False):
        window = torch.hann_window(MEL_WINDOW, dtype=dtype, device=device)
        return window, torch.tensor(filters.T, dtype=dtype, device=device).contiguous()


class MelFeatureExtractor(nn.Module):
    """Log-mel spectrogram and the convolutions on it."""

    def __init__(self, anatomy: EncoderAnatomy) -> None:
        super().__init__()
        self.log_mel = LogMel(anatomy.mel_bins)
        self.conv_layers = nn.ModuleList(
            ConvLayer(anatomy, index) for index in range(len(anatomy.convolutions))
        )

    def forward(
        self, waveforms: Tensor, kept: KeptChannels = None, attention_mask: Tensor | None = None
    ) -> Tensor:
        """Waveforms (batch, samples) to features (batch, windows, channels)."""
        return self.convolved(self.log_mel(waveforms, attention_mask), attention_mask)

    def convolved(self, mel: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Spectrogram (batch, bins, windows) to features (batch, windows, channels), 0 where they are padding."""
        first: Any = self.conv_layers[0]
        x = mel.to(first.conv.weight.dtype)  # an attribute also in the replicas of `nn.DataParallel`
        kept = window_mask(attention_mask, x.shape[-1])
        for layer in self.conv_layers:
            x = layer(x) if kept is None else layer(x) * kept
        return x.transpose(1, 2)


class StridedProjection(nn.Module):
    """Convolution over features with GELU, to the model's width and to one frame for every two windows."""

    def __init__(self, anatomy: EncoderAnatomy) -> None:
        super().__init__()
        convolution = anatomy.projection_convolution
        assert convolution is not None
        self.projection = nn.Conv1d(
            anatomy.convolutions[-1].channels,
            convolution.channels,
            convolution.kernel,
            stride=convolution.stride,
            padding=convolution.padding,
        )

    def forward(self, features: Tensor, kept: Tensor | None = None) -> Tensor:
        """(batch, windows, channels) to (batch, frames, width)."""
        return F.gelu(self.projection(features.transpose(1, 2))).transpose(1, 2)


class PositionTable(nn.Module):
    """A fixed vector for each position: sinusoids, or the values stored in the checkpoint. It is not trained."""

    def __init__(self, anatomy: EncoderAnatomy) -> None:
        super().__init__()
        self.weight: Tensor
        self.register_buffer("weight", sinusoids(anatomy.position_table, anatomy.width))

    def forward(self, x: Tensor) -> Tensor:
        """The positions (frames, width) to be added to x (batch, frames, width)."""
        return self.weight[: x.shape[1]].to(x.dtype)


def sinusoids(positions: int, width: int) -> Tensor:
    """Sines and cosines of wavelengths from 2 pi to 20,000 pi positions, (positions, width)."""
    half = (width + 1) // 2
    rates = torch.exp(-math.log(10_000) / max(1, half - 1) * torch.arange(half))
    angles = torch.arange(positions).unsqueeze(1) * rates
    return torch.cat([angles.sin(), angles.cos()], 1)[:, :width]
