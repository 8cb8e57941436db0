"""Small random Whisper models, made by `transformers` itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

POSITIONS = 50
SAMPLES = 320 * POSITIONS
"""The longest input of `model`: one second."""
VOCABULARY = 60


def config(**changes: Any) -> WhisperConfig:
    """A tiny configuration."""
    fields = {
        "d_model": 32,
        "encoder_layers": 3,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_layers": 2,
        "decoder_attention_heads": 4,
        "decoder_ffn_dim": 40,
        "vocab_size": VOCABULARY,
        "max_source_positions": POSITIONS,
        "max_target_positions": 24,
        "num_mel_bins": 80,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 3,
        "suppress_tokens": [],
        "begin_suppress_tokens": [],
    }
    return WhisperConfig(**{**fields, **changes})


def model(seed: int = 0, **changes: Any) -> WhisperForConditionalGeneration:
    """A random model whose norms, biases and positions are random too, so that nothing is hidden by zeros and ones."""
    torch.manual_seed(seed)
    made = WhisperForConditionalGeneration(config(**changes)).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.dim() == 1 or "encoder.embed_positions" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return made


def feature_extractor(**changes: Any) -> WhisperFeatureExtractor:
    """The feature extractor that belongs to `model`."""
    return WhisperFeatureExtractor(**{"chunk_length": 1, **changes})


def directory(path: Path, **changes: Any) -> Path:
    """A model with its feature extractor, saved as a checkpoint directory."""
    made = model(**changes)
    made.save_pretrained(path)
    feature_extractor(feature_size=made.config.num_mel_bins).save_pretrained(path)
    return path
