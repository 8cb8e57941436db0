"""A small encoder that takes every fast way once it is pruned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from drawn import random_encoder, uneven_masks
from slimvox.encoder import SpeechEncoder
from slimvox.hf.configuration import SlimvoxConfig
from slimvox.hf.modeling import SlimvoxModel
from slimvox.pruning.surgery import slice_encoder
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.structures.parts import ConvAnatomy, dense_layer


def wavlm(**changes: Any) -> EncoderAnatomy:
    """A dense WavLM with a positional convolution of many taps."""
    anatomy = EncoderAnatomy(
        family="wavlm",
        convolutions=tuple(
            ConvAnatomy(channels=channels, kernel=kernel, stride=stride)
            for channels, kernel, stride in ((16, 10, 5), (12, 3, 2), (20, 2, 2))
        ),
        conv_norm="group",
        conv_bias=False,
        projection_norm=True,
        width=32,
        position_kernel=32,
        position_groups=2,
        attention_heads=4,
        layers=(dense_layer(heads=4, head_width=8, intermediate=48),) * 2,
        pre_norm=False,
        layer_norm_eps=1e-5,
        position_buckets=16,
        position_max_distance=24,
    )
    return replace(anatomy, **changes)


def pruned(**changes: Any) -> SpeechEncoder:
    """The same with heads of unequal width and one head less in each layer."""
    encoder = random_encoder(wavlm(**changes), 0)
    return slice_encoder(encoder, uneven_masks(encoder.anatomy)).encoder.eval()


def as_transformers_model(encoder: SpeechEncoder) -> SlimvoxModel:
    """The same as `AutoModel` loads it, with all hidden states by default."""
    anatomies = {"anatomy": encoder.anatomy.to_dict(), "dense_anatomy": encoder.dense_anatomy.to_dict()}
    model = SlimvoxModel(SlimvoxConfig(**anatomies, output_hidden_states=True))
    model.load_state_dict(encoder.state_dict())
    return model.eval()


def states(encoder: nn.Module, waveforms: Tensor, mask: Tensor | None = None) -> Tensor:
    """All hidden states, padding left out, as one tensor."""
    output = encoder(waveforms, mask)
    return torch.stack([each[output.frame_mask] for each in output.hidden_states]).detach()
