"""SpecAugment on the front end's features, for fine-tuning."""

from __future__ import annotations

import torch
from torch import Tensor

from slimvox.hf.configuration import SlimvoxConfig


def spec_augment(features: Tensor, frame_mask: Tensor, config: SlimvoxConfig) -> Tensor:
    """Set spans of frames and of channels to zero, with numbers and lengths from the configuration.

    The fields have the same meaning as in `transformers`' Wav2Vec2Config. The value of a masked frame differs: the mask
    embedding of pre-training is not kept in a pruned encoder, so the projection sees zeros.

    Args:
        features: the front end's output, (batch, frames, channels).
        frame_mask: (batch, frames), true for frames of speech.
        config: see the `mask_` fields.

    Returns:
        (batch, frames, channels), a new tensor.
    """
    from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices

    if not config.apply_spec_augment:
        return features
    batch, frames, channels = features.shape
    if config.mask_time_prob > 0:
        spans = _compute_mask_indices(
            (batch, frames),
            mask_prob=config.mask_time_prob,
            mask_length=config.mask_time_length,
            attention_mask=frame_mask.long(),
            min_masks=config.mask_time_min_masks,
        )
        features = features.masked_fill(torch.from_numpy(spans).to(features.device).unsqueeze(-1), 0.0)
    if config.mask_feature_prob > 0:
        spans = _compute_mask_indices(
            (batch, channels),
            mask_prob=config.mask_feature_prob,
            mask_length=config.mask_feature_length,
            min_masks=config.mask_feature_min_masks,
        )
        features = features.masked_fill(torch.from_numpy(spans).to(features.device).unsqueeze(1), 0.0)
    return features
