"""Small random Whisper models, made by `transformers` itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AddedToken,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

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


def tokenizer() -> WhisperTokenizer:
    """A tokenizer of single bytes, with Whisper's special tokens and timestamps."""
    names = ("endoftext", "startoftranscript", "en", "translate", "transcribe", "startoflm", "startofprev")
    special = [f"<|{name}|>" for name in (*names, "nospeech", "notimestamps")]
    times = [f"<|{0.02 * step:.2f}|>" for step in range(1501)]
    characters = sorted(bytes_to_unicode().values())
    vocabulary = {token: number for number, token in enumerate((*characters, *special, *times))}
    made = WhisperTokenizer(vocab=vocabulary, merges=[])
    made.add_special_tokens({"additional_special_tokens": special[1:]})
    made.add_tokens([AddedToken(time, special=False) for time in times])
    return made


def recogniser(path: Path, **changes: Any) -> WhisperForConditionalGeneration:
    """A model with tokenizer, processor and settings for timestamps, saved as a checkpoint directory.

    Its weights are large, so that what it writes depends on what it hears.
    """
    words = tokenizer()
    numbers = {name: words.convert_tokens_to_ids(f"<|{name}|>") for name in ("en", "transcribe", "translate")}
    end = words.convert_tokens_to_ids("<|endoftext|>")
    start = words.convert_tokens_to_ids("<|startoftranscript|>")
    made = model(
        vocab_size=len(words), pad_token_id=end, bos_token_id=end, eos_token_id=end, decoder_start_token_id=start,
        max_target_positions=64, **changes,
    )  # fmt: skip
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.dim() == 1 and "decoder" in name:
                parameter.fill_(1.0 if "norm.weight" in name else 0.0)
            elif parameter.dim() > 1 and "embed_positions" not in name:
                parameter.mul_(10.0)
    settings = dict(
        pad_token_id=end, bos_token_id=end, eos_token_id=end, decoder_start_token_id=start, max_length=64,
        is_multilingual=True, lang_to_id={"<|en|>": numbers["en"]},
        task_to_id={name: numbers[name] for name in ("transcribe", "translate")},
        no_timestamps_token_id=words.convert_tokens_to_ids("<|notimestamps|>"),
        prev_sot_token_id=words.convert_tokens_to_ids("<|startofprev|>"),
        alignment_heads=[[0, 0], [1, 1]], begin_suppress_tokens=[],
        suppress_tokens=[*range(words.convert_tokens_to_ids("<|1.02|>"), len(words))],
    )  # fmt: skip
    for name, value in settings.items():
        setattr(made.generation_config, name, value)
    made.generation_config._from_model_config = (
        False  # or `transformers` takes it for a mere copy of the other
    )
    made.save_pretrained(path)
    WhisperProcessor(feature_extractor(), words).save_pretrained(path)
    return made
