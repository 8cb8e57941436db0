"""The encoder as exporters and runtimes like it: the same function, other operations."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from slimvox.encoder import EncoderOutput, SpeechEncoder
from slimvox.encoder.layer import EncoderLayer
from slimvox.encoder.waveforms import frame_mask, normalize_waveforms, padding_bias
from slimvox.exporters.front_end import PatchFrontEnd
from slimvox.exporters.layer import ExportedLayer
from slimvox.exporters.position import spectral_positions
from slimvox.exporters.signature import Layers

if TYPE_CHECKING:
    from slimvox.hf.heads import SlimvoxWithHead


class ExportableModel(nn.Module):
    """Waveforms (and a mask) in, a flat tuple of tensors out: those that `Signature.outputs` names."""

    def __init__(
        self,
        encoder: SpeechEncoder,
        head: SlimvoxWithHead | None = None,
        *,
        layers: Layers,
        taps_in_file: bool = True,
    ) -> None:
        """`head`: a model whose task head is computed on the hidden states of `encoder`."""
        super().__init__()
        self.encoder = ExportableEncoder(encoder, taps_in_file=taps_in_file)
        self.layers = layers
        self.head: SlimvoxWithHead | None = None
        if head is not None:
            self.head = copy.deepcopy(head).eval()
            del self.head.slimvox
        self.requires_grad_(False)

    def forward(self, waveforms: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """Hidden states, what the head makes of them, and with a mask the frame mask."""
        output = self.encoder(waveforms, attention_mask)
        outputs: list[Tensor] = []
        if self.layers == "all":
            outputs += output.hidden_states
        if self.layers == "last" or (self.layers == "all" and self.encoder.anatomy.pre_norm):
            outputs.append(output.last_hidden_state)
        mask = None if attention_mask is None else output.frame_mask
        if self.head is not None:
            read = self.head.head_input(output.last_hidden_state, output.hidden_states)
            outputs += self.head.apply_head(read, mask)
        return tuple(outputs) if mask is None else (*outputs, mask)


class ExportableEncoder(nn.Module):
    """Computes what `encoder` does."""

    def __init__(self, encoder: SpeechEncoder, *, taps_in_file: bool = True) -> None:
        super().__init__()
        encoder = copy.deepcopy(encoder).eval()
        anatomy = encoder.anatomy
        self.anatomy = anatomy
        self.front_end = PatchFrontEnd(anatomy, encoder.feature_extractor)
        self.feature_projection = encoder.feature_projection
        self.positions = spectral_positions(encoder.pos_conv_embed, taps_in_file=taps_in_file)
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

    def forward(self, waveforms: Tensor, attention_mask: Tensor | None = None) -> EncoderOutput:
        """Same as `SpeechEncoder.forward`."""
        if self.anatomy.normalize_waveform:
            waveforms = normalize_waveforms(waveforms, attention_mask)
        x = self.feature_projection(self.front_end(waveforms))
        frames = x.shape[1]
        bias = None
        if attention_mask is None:
            speech = torch.ones(x.shape[:2], dtype=torch.bool)
        else:
            speech = frame_mask(attention_mask, self.anatomy, frames)
            bias = padding_bias(speech)
            x = x * speech.unsqueeze(-1)
        x = x + self.positions(x)
        if not self.anatomy.pre_norm:
            x = self.layer_norm(x)
        position_bias = None if self.table is None else self._position_bias(frames)
        states = [x]
        for layer in self.layers:
            x = layer(x, position_bias, bias)
            states.append(x)
        last = self.layer_norm(x) if self.anatomy.pre_norm else x
        return EncoderOutput(hidden_states=tuple(states), last_hidden_state=last, frame_mask=speech)

    def _position_bias(self, frames: int) -> Tensor:
        """(heads of any layer, frames, frames), each row the one above moved on by one."""
        assert self.table is not None
        distances = torch.arange(-frames, frames)
        values = self.table.weight[self.table.bucket(distances)].T
        # Repeated without end, and cut into rows one shorter than its period, a sequence moves on by one per row.
        heads, period = values.shape[0], 2 * frames
        repeated = values.unsqueeze(1).expand(heads, frames, period).reshape(heads, frames * period)
        return repeated[:, frames:].reshape(heads, frames, period - 1)[..., :frames]
