"""The encoder as exporters and runtimes like it: the same function, other operations."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from slimvox.encoder import SpeechEncoder
from slimvox.encoder.layer import EncoderLayer
from slimvox.encoder.model import normalize_waveforms
from slimvox.export.front_end import PatchFrontEnd
from slimvox.export.layer import ExportedLayer
from slimvox.export.position import SpectralPositions


class ExportableEncoder(nn.Module):
    """Computes what `encoder` does; waveforms (and a mask) in, a flat tuple of tensors out."""

    def __init__(self, encoder: SpeechEncoder, *, last_only: bool, taps_in_file: bool = True) -> None:
        super().__init__()
        encoder = copy.deepcopy(encoder).eval()
        anatomy = encoder.anatomy
        self.last_only = last_only
        self.anatomy = anatomy
        self.front_end = PatchFrontEnd(anatomy, encoder.feature_extractor)
        self.feature_projection = encoder.feature_projection
        self.positions = SpectralPositions(encoder.pos_conv_embed, taps_in_file=taps_in_file)
        self.layer_norm = encoder.layer_norm
        self.heads = sorted({head.index for layer in anatomy.layers for head in layer.heads})
        self.table = encoder.rel_attn_embed if self.heads else None
        if self.table is not None:
            self.table.weight = nn.Parameter(self.table.weight[:, self.heads])
        layers = [layer for layer in encoder.layers if isinstance(layer, EncoderLayer)]
        self.layers = nn.ModuleList(
            ExportedLayer(layer_anatomy, layer, anatomy, self.heads)
            for layer_anatomy, layer in zip(anatomy.layers, layers, strict=True)
        )
        self.requires_grad_(False)

    def forward(self, waveforms: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """The hidden states (or the last), and with a mask the frame mask after them."""
        if self.anatomy.normalize_waveform:
            waveforms = normalize_waveforms(waveforms, attention_mask)
        x = self.feature_projection(self.front_end(waveforms))
        frames = x.shape[1]
        padding_bias, frame_mask = None, None
        if attention_mask is not None:
            frame_mask = self._frame_mask(attention_mask, frames)
            attended = frame_mask | ~frame_mask.any(-1, keepdim=True)
            padding_bias = torch.where(attended, 0.0, float("-inf"))[:, None, None, :]
            x = x * frame_mask.unsqueeze(-1)
        x = x + self.positions(x)
        if not self.anatomy.pre_norm:
            x = self.layer_norm(x)
        position_bias = None if self.table is None else self._position_bias(frames)
        states = [x]
        for layer in self.layers:
            x = layer(x, position_bias, padding_bias)
            states.append(x)
        last = self.layer_norm(x) if self.anatomy.pre_norm else x
        outputs = [last]
        if not self.last_only:
            outputs = [*states, last] if self.anatomy.pre_norm else states
        return tuple(outputs) if frame_mask is None else (*outputs, frame_mask)

    def _frame_mask(self, mask: Tensor, frames: int) -> Tensor:
        lengths = mask.to(torch.long).sum(-1, keepdim=True)
        for convolution in self.anatomy.convolutions:
            lengths = torch.div(lengths - convolution.kernel, convolution.stride, rounding_mode="floor") + 1
        return torch.arange(frames) < lengths

    def _position_bias(self, frames: int) -> Tensor:
        """(heads of any layer, frames, frames), each row the one above moved on by one."""
        assert self.table is not None
        distances = torch.arange(-frames, frames)
        values = self.table.weight[self.table.bucket(distances)].T
        # Repeated without end, and cut into rows one shorter than its period, a sequence moves on by one per row.
        heads, period = values.shape[0], 2 * frames
        repeated = values.unsqueeze(1).expand(heads, frames, period).reshape(heads, frames * period)
        return repeated[:, frames:].reshape(heads, frames, period - 1)[..., :frames]
