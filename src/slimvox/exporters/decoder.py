"""Whisper's decoder as a separate ONNX file, which continues from the keys and values of its last call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimvox.checkpoint.json_fields import read_json
from slimvox.encoder import SpeechEncoder
from slimvox.exporters.base import Program
from slimvox.exporters.trace import traced
from slimvox.hf.directory_format import WHISPER_MODEL_TYPE

INPUTS = ("tokens", "cross_keys", "cross_values", "past_keys", "past_values")
OUTPUTS = ("logits", "keys", "values")
TOKENS, PROMPT = 7, 4
"""Number of tokens that the file is compared on, and of those that it gets at once."""


class CrossProjections(nn.Module):
    """Keys and values of each decoder layer, computed from the encoder's states.

    It has the interface of a task head (`slimvox.hf.heads.SlimvoxWithHead`), so that the encoder's file returns them.
    B = batch, L = layers of the decoder, H = its heads, T = frames, W = width of a head.
    """

    head_outputs: ClassVar[tuple[str, ...]] = ("cross_keys", "cross_values")
    fewest_frames = 1
    reads_all_states = False

    def __init__(self, encoder: SpeechEncoder, whisper: Any) -> None:
        super().__init__()
        self.slimvox = encoder
        layers = [layer.encoder_attn for layer in whisper.model.decoder.layers]
        self.heads = layers[0].num_heads
        self.keys = nn.ModuleList(layer.k_proj for layer in layers)
        self.values = nn.ModuleList(layer.v_proj for layer in layers)

    def head_input(self, last_hidden_state: Tensor, hidden_states: object) -> Tensor:
        """The last hidden state."""
        return last_hidden_state

    def apply_head(self, states: Tensor, frame_mask: Tensor | None) -> tuple[Tensor, ...]:
        """States (B, T, width) to keys and values, (B, L, H, T, W) each."""
        projected = (
            torch.stack([split_heads(layer(states), self.heads) for layer in layers], 1)
            for layers in (self.keys, self.values)
        )
        return tuple(projected)

    def forward(self, waveforms: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
        """Keys and values of waveforms, by name."""
        output = self.slimvox(waveforms, attention_mask)
        return dict(
            zip(self.head_outputs, self.apply_head(output.last_hidden_state, attention_mask), strict=True)
        )


class DecoderStep(nn.Module):
    """One step of the decoder, with its state as inputs and outputs."""

    def __init__(self, whisper: Any) -> None:
        super().__init__()
        decoder = whisper.model.decoder
        self.embed_tokens, self.embed_positions = decoder.embed_tokens, decoder.embed_positions
        self.layers, self.layer_norm, self.proj_out = decoder.layers, decoder.layer_norm, whisper.proj_out
        self.requires_grad_(False)

    def forward(
        self, tokens: Tensor, cross_keys: Tensor, cross_values: Tensor, past_keys: Tensor, past_values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Read tokens.

        Args:
            tokens: (B, N), tokens that have not been read yet.
            cross_keys: keys from `CrossProjections`.
            cross_values: values from `CrossProjections`.
            past_keys: (B, L, H, P, W), `keys` of the last call; P = 0 at first.
            past_values: (B, L, H, P, W), `values` of the last call.

        Returns:
            Logits (B, N, vocabulary), keys and values (B, L, H, P + N, W).
        """
        past, count = past_keys.shape[3], tokens.shape[1]
        places = torch.arange(count, device=tokens.device) + past
        x = self.embed_tokens(tokens) + F.embedding(places, self.embed_positions.weight)
        seen = torch.arange(past + count, device=tokens.device) <= places.unsqueeze(-1)
        bias = torch.where(seen, 0.0, float("-inf"))
        keys, values = [], []
        for index, layer in enumerate(self.layers):
            attention = layer.self_attn
            normed = layer.self_attn_layer_norm(x)
            key = split_heads(attention.k_proj(normed), attention.num_heads)
            value = split_heads(attention.v_proj(normed), attention.num_heads)
            keys.append(torch.cat([past_keys[:, index], key], 2))
            values.append(torch.cat([past_values[:, index], value], 2))
            x = x + _attended(attention, normed, keys[-1], values[-1], bias)
            crossed = layer.encoder_attn_layer_norm(x)
            x = x + _attended(layer.encoder_attn, crossed, cross_keys[:, index], cross_values[:, index], None)
            x = x + layer.fc2(F.gelu(layer.fc1(layer.final_layer_norm(x))))
        return self.proj_out(self.layer_norm(x)), torch.stack(keys, 1), torch.stack(values, 1)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(batch, time, heads * width) to (batch, heads, time, width)."""
    return x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def _attended(attention: Any, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    queries = split_heads(attention.q_proj(x) * attention.scaling, attention.num_heads)
    scores = queries @ keys.transpose(2, 3)
    weights = torch.softmax(scores if bias is None else scores + bias, -1)
    mixed: Tensor = attention.out_proj((weights @ values).transpose(1, 2).flatten(2))
    return mixed


def load_whisper(directory: Path) -> Any:
    """The `WhisperForConditionalGeneration` of a directory, dense or pruned, in float32."""
    from transformers import WhisperForConditionalGeneration

    from slimvox.hf.whisper import SlimvoxWhisperForConditionalGeneration

    pruned = read_json(directory / "config.json")["model_type"] == WHISPER_MODEL_TYPE
    kind: Any = SlimvoxWhisperForConditionalGeneration if pruned else WhisperForConditionalGeneration
    return kind.from_pretrained(directory, dtype=torch.float32).eval()


def trace_decoder(whisper: Any) -> Any:
    """The `ExportedProgram` of `DecoderStep`, for any batch size and numbers of frames and tokens."""
    dynamic = torch.export.Dim.DYNAMIC
    shapes = tuple({0: dynamic, axis: dynamic} for axis in (1, 3, 3, 3, 3))
    samples = _inputs(whisper, torch.zeros(2, 3, dtype=torch.long), frames=7, past=5)
    return traced(DecoderStep(whisper).eval(), samples, shapes)


def _inputs(whisper: Any, tokens: Tensor, *, frames: int, past: int) -> tuple[Tensor, ...]:
    config = whisper.config
    heads, layers = config.decoder_attention_heads, config.decoder_layers
    shape = (len(tokens), layers, heads)
    width = config.d_model // heads
    crossed = torch.zeros(*shape, frames, width)
    before = torch.zeros(*shape, past, width)
    return tokens, crossed, crossed.clone(), before, before.clone()


def decoder_metadata(whisper: Any, about: Mapping[str, str]) -> dict[str, str]:
    """Metadata of the decoder's file: that of the encoder's, and the tokens that a loop needs."""
    settings = whisper.generation_config
    named = {name: getattr(settings, name, None) for name in ("decoder_start_token_id", "eos_token_id")}
    return {**about, **{name: json.dumps(value) for name, value in named.items()}}


@torch.no_grad()
def decoder_difference(program: Program, whisper: Any) -> float:
    """Largest difference of a logit from `transformers`' decoder, as a share of the largest logit.

    The file reads a few tokens at once and then one by one; `transformers` reads all of them at once, without a cache.
    """
    config = whisper.config
    draw = np.random.default_rng(0)
    tokens = torch.from_numpy(draw.integers(0, config.vocab_size, (2, TOKENS)))
    states = torch.from_numpy(draw.normal(size=(2, 50, config.d_model)).astype(np.float32))
    expected = whisper.proj_out(
        whisper.model.decoder(
            input_ids=tokens, encoder_hidden_states=states, use_cache=False
        ).last_hidden_state
    ).numpy()
    crossed = [each.numpy() for each in CrossProjections(None, whisper).apply_head(states, None)]  # type: ignore[arg-type]
    past = [each.numpy() for each in _inputs(whisper, tokens, frames=1, past=0)[-2:]]
    found = []
    for start, end in ((0, PROMPT), *((place, place + 1) for place in range(PROMPT, TOKENS))):
        logits, *past = program(tokens[:, start:end].numpy(), *crossed, *past)
        found.append(logits)
    difference = np.abs(np.concatenate(found, 1) - expected).max()
    return float(difference / np.abs(expected).max())
