"""The encoder: waveforms in, all hidden states out."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimvox.encoder.convolution import KeptChannels
from slimvox.encoder.front_end import (
    FeatureExtractor,
    FeatureProjection,
    PositionalConvolution,
    PositionalStack,
)
from slimvox.encoder.layer import EncoderLayer
from slimvox.encoder.log_mel import MelFeatureExtractor, PositionTable, StridedProjection
from slimvox.encoder.position_bias import PositionBiasTable
from slimvox.encoder.pretrained import PretrainedMethods
from slimvox.encoder.waveforms import check_waveforms, frame_mask, normalize_waveforms, padding_bias
from slimvox.structures.anatomy import EncoderAnatomy

ENCODER_MODULES = (
    "feature_extractor",
    "feature_projection",
    "pos_conv_embed",
    "rel_attn_embed",
    "layer_norm",
    "layers",
)
"""Names of the modules of a `SpeechEncoder`."""


class EncoderOutput(NamedTuple):
    """Output of an encoder; B = batch, T = frames (50 per second), D = width.

    The fields can also be read as from the outputs of `transformers`: `output[0]` is `last_hidden_state`,
    `output["hidden_states"]` is a field by its name, `last, states, frame_mask = output` unpacks all three, and
    `**output` passes them by name. It is a named tuple, which `nn.DataParallel` gathers.
    """

    last_hidden_state: Tensor
    """(B, T, D): the last of the hidden states; in pre-norm (large) models, after the final layer norm."""
    hidden_states: tuple[Tensor, ...]
    """Layers + 1 tensors (B, T, D): the input of the first layer and the output of each layer, as in `transformers` 5.
    The last of a pre-norm (large) model has not gone through the final layer norm; that of Whisper has."""
    frame_mask: Tensor
    """(B, T) bool: True for frames of speech, False for padding. All True when no mask was given."""

    def to_tuple(self) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        """`(last_hidden_state, hidden_states, frame_mask)`."""
        return self.last_hidden_state, self.hidden_states, self.frame_mask

    def keys(self) -> tuple[str, ...]:
        """Names of the fields, in the order of `to_tuple`."""
        return self._fields

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            if key not in self._fields:
                raise KeyError(f"an encoder's output has no {key!r}; it has {', '.join(self.keys())}")
            return getattr(self, key)
        return tuple.__getitem__(self, key)

    @property
    def downstream_states(self) -> tuple[Tensor, ...]:
        """Layers + 1 tensors (B, T, D) for downstream heads: `hidden_states` with `last_hidden_state` as the last.

        This is what s3prl's upstreams return and SUPERB's heads read. They collect the inputs of the layers and the
        output of the whole encoder, so that the last state of a pre-norm (large) model is a normalised one.
        """
        return (*self.hidden_states[:-1], self.last_hidden_state)


@runtime_checkable
class HasEncoder(Protocol):
    """A speech encoder, or a model that contains one: functions that take an encoder accept either."""

    def as_encoder(self) -> SpeechEncoder:
        """The encoder, with the same parameters."""


def _positions(anatomy: EncoderAnatomy) -> nn.Module:
    if anatomy.position_table:
        return PositionTable(anatomy)
    return PositionalStack(anatomy) if anatomy.position_stack else PositionalConvolution(anatomy)


class SpeechEncoder(nn.Module, PretrainedMethods):
    """wav2vec 2.0 and its relatives (see `slimvox.families`), dense or pruned, built from an anatomy.

    It has no dropout, layer drop or SpecAugment: it computes the same function in training and in evaluation mode.

    Attributes:
        anatomy: structure of the encoder.
        dense_anatomy: structure of the encoder that it was pruned from (its own anatomy if never pruned).
        origin: directory that it was loaded from or written to by a run, whose model card, kept indices and decoder
            (Whisper) `save_pretrained` copies; None for an encoder created in memory.
    """

    origin: Path | None = None

    def __init__(self, anatomy: EncoderAnatomy, dense_anatomy: EncoderAnatomy | None = None) -> None:
        super().__init__()
        self.anatomy = anatomy
        self.dense_anatomy = dense_anatomy or anatomy
        self.feature_extractor = (MelFeatureExtractor if anatomy.mel_bins else FeatureExtractor)(anatomy)
        self.feature_projection = (
            FeatureProjection if anatomy.projection_convolution is None else StridedProjection
        )(anatomy)
        self.pos_conv_embed = _positions(anatomy)
        self.rel_attn_embed = PositionBiasTable(anatomy) if anatomy.has_position_table else None
        self.layer_norm = nn.LayerNorm(anatomy.width, eps=anatomy.layer_norm_eps)
        self.layers = nn.ModuleList(EncoderLayer(anatomy, layer) for layer in anatomy.layers)

    @property
    def parameter_count(self) -> int:
        """Number of parameters, as stored."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def absent_tensors(self) -> frozenset[str]:
        """Names of unused tensors that earlier versions stored: empty weights, a table without heads."""
        names = []
        for index, layer in enumerate(self.anatomy.layers):
            attention, feed_forward = f"layers.{index}.attention.", f"layers.{index}.feed_forward."
            if layer.attention and not layer.qk:
                names += [f"{attention}{each}_proj.{kind}" for each in "qk" for kind in ("weight", "bias")]
            if layer.attention and not layer.vo:
                names += [
                    f"{attention}{each}" for each in ("v_proj.weight", "v_proj.bias", "out_proj.weight")
                ]
            if layer.feed_forward and not layer.intermediate:
                names += [f"{feed_forward}intermediate_dense.{kind}" for kind in ("weight", "bias")]
                names.append(f"{feed_forward}output_dense.weight")
        if self.anatomy.has_position_bias and self.rel_attn_embed is None:
            names.append("rel_attn_embed.weight")
        return frozenset(names)

    def as_encoder(self) -> SpeechEncoder:
        """The encoder itself. Models that wrap an encoder in another interface return it here; see `HasEncoder`."""
        return self

    def forward(
        self,
        waveforms: Tensor,
        attention_mask: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        kept_channels: KeptChannels = None,
    ) -> EncoderOutput:
        """Encode.

        Args:
            waveforms: (batch, samples), 16 kHz, mono, zero-padded on the right if lengths differ. Any floating-point
                type is converted to that of the weights.
            attention_mask: (batch, samples), true or 1 for audio and false or 0 for padding, as in `transformers`.
                Models with a group-norm front end (the base models) were trained on zero-padded audio without a mask,
                and their first norm runs over the padding as well: with or without a mask, the output for a padded clip
                differs slightly from that for the clip alone. For Whisper, whose mask `transformers` ignores, the
                output for a padded clip is that of the clip alone with a mask, and that of the clip followed by silence
                without one.
            mask: deprecated name of `attention_mask`.
            kept_channels: for the masked student only; see `slimvox.pruning.masks`.

        Raises:
            TypeError: if both `attention_mask` and `mask` are given.
            ValueError: if `waveforms` is not (batch, samples), not floating point, too short for one frame, or longer
                than the model has positions for.
        """
        if mask is not None:
            if attention_mask is not None:
                raise TypeError("`mask` is the old name of `attention_mask`: give only one of them")
            message = "`mask` is now called `attention_mask`; the old name will be removed in slimvox 0.3"
            warnings.warn(message, DeprecationWarning, stacklevel=2)
            attention_mask = mask
        waveforms = self.prepared(waveforms, attention_mask)
        features = self.feature_extractor(waveforms, kept_channels, attention_mask)
        return self.transform(features, attention_mask, kept_channels=kept_channels)

    def prepared(self, waveforms: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """The waveforms as the front end needs them: checked, normalised if the model requires it, in its precision.

        Raises:
            ValueError: see `forward`.
        """
        anatomy = self.anatomy
        check_waveforms(waveforms, attention_mask, least=anatomy.receptive_field, most=anatomy.most_samples)
        if anatomy.normalize_waveform:
            waveforms = normalize_waveforms(waveforms, attention_mask)
        dtypes = [each.dtype for each in self.feature_extractor.parameters() if each.is_floating_point()]
        dtype = dtypes[0] if dtypes else torch.float32
        # A spectrogram is computed in float32 at least, whatever the weights.
        return waveforms.to(torch.promote_types(dtype, torch.float32) if anatomy.mel_bins else dtype)

    def pad_to_window(self, waveforms: Tensor) -> Tensor:
        """Waveforms (batch, samples), padded with silence to the longest valid input, (batch, 480000) for Whisper.

        This is the form of audio that `transformers` gives to Whisper and that Whisper was trained on. Without it,
        computing time depends on the clip's own length, and the states differ from those of the padded form. Waveforms
        of models without a longest input are returned as they are.
        """
        most = self.anatomy.most_samples
        return waveforms if most is None else F.pad(waveforms, (0, max(0, most - waveforms.shape[-1])))

    def transform(
        self, features: Tensor, attention_mask: Tensor | None = None, *, kept_channels: KeptChannels = None
    ) -> EncoderOutput:
        """Everything after the front end: `features` (batch, frames, channels) is `feature_extractor`'s output."""
        x = self.feature_projection(features, None if kept_channels is None else kept_channels[-1])
        frames = x.shape[1]
        bias = None
        if attention_mask is None:
            speech = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        else:
            speech = frame_mask(attention_mask, self.anatomy, frames)
            bias = padding_bias(speech).to(x.dtype)
            x = x * speech.unsqueeze(-1)
        x = x + self.pos_conv_embed(x)
        if not self.anatomy.pre_norm:
            x = self.layer_norm(x)
        position_bias = self.rel_attn_embed(frames) if self.rel_attn_embed is not None else None
        states = [x]
        for layer in self.layers:
            x = layer(x, position_bias, bias)
            states.append(x)
        last = self.layer_norm(x) if self.anatomy.pre_norm else x
        if self.anatomy.final_norm_in_states:
            states[-1] = last
        return EncoderOutput(hidden_states=tuple(states), last_hidden_state=last, frame_mask=speech)
