"""Transcribe with the two ONNX files of a Whisper, using only onnxruntime, numpy, soundfile and tokenizers.

    slimvox export runs/whisper --heads
    python examples/transcribe_with_onnx.py runs/whisper recording.wav

The recording must be 16 kHz mono, of up to 30 s. The search is greedy, without suppressed tokens and timestamps.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import soundfile
from tokenizers import Tokenizer

WINDOW_SECONDS = 30


def decode(
    encoder: Any, decoder: Any, waveform: np.ndarray[Any, Any], prompt: list[int], end: int, most: int
) -> list[int]:
    """The tokens that follow the prompt, without the end token.

    Args:
        encoder: session of the file with `cross_keys` and `cross_values`.
        decoder: session of the decoder's file.
        waveform: (samples,) float32, padded to the window that the model was trained on.
        prompt: first tokens.
        end: end token.
        most: maximum number of tokens.
    """
    keys, values = encoder.run(None, {"waveforms": waveform[None]})
    batch, layers, heads, _, width = keys.shape
    past = [np.zeros((batch, layers, heads, 0, width), np.float32)] * 2
    tokens, found = list(prompt), []
    while len(found) < most:
        given = dict(zip(("past_keys", "past_values"), past, strict=True))
        given |= {"tokens": np.array([tokens]), "cross_keys": keys, "cross_values": values}
        logits, *past = decoder.run(None, given)
        token = int(logits[0, -1].argmax())
        if token == end:
            break
        found.append(token)
        tokens = [token]
    return found


def main() -> None:
    """Read the command line, transcribe, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--language", default="en")
    parser.add_argument("--most", type=int, default=200, help="maximum number of tokens")
    parser.add_argument(
        "--window", type=float, default=WINDOW_SECONDS, help="seconds that the model was trained on"
    )
    arguments = parser.parse_args()
    sessions = [
        onnxruntime.InferenceSession(str(arguments.directory / name), providers=["CPUExecutionProvider"])
        for name in ("model.onnx", "model-decoder.onnx")
    ]
    words = Tokenizer.from_file(str(arguments.directory / "tokenizer.json"))
    names = ("startoftranscript", arguments.language, "transcribe", "notimestamps")
    prompt = [words.token_to_id(f"<|{name}|>") for name in names]
    end = json.loads(sessions[1].get_modelmeta().custom_metadata_map["eos_token_id"])
    waveform, rate = soundfile.read(arguments.recording, dtype="float32")
    window = round(arguments.window * rate)
    padded = np.pad(waveform[:window], (0, max(0, window - len(waveform))))
    print(words.decode(decode(*sessions, padded, prompt, end, arguments.most)).strip())


if __name__ == "__main__":
    main()
