"""Prune Whisper's encoder by half on your own recordings, and compare transcripts, in about ten minutes on two CPU
cores.

    python examples/whisper.py openai/whisper-base speech/ --out runs/whisper

`speech/` is a folder of recordings, without transcripts. The last of them is held out, and transcribed by both models.
Ten minutes are enough to show the procedure. A usable model takes the whole recipe on hours of speech, some minutes on
a large GPU: `slimvox prune openai/whisper-base speech/ --out runs/whisper`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from transformers import pipeline

import slimvox
from slimvox.audio import read_audio

SETTINGS = ("data.seconds_per_batch=8", "data.max_seconds=8")
"""Changes to the recipe `whisper`: one or two clips a step instead of 32."""


def transcribe(directory: Path, recording: Path) -> tuple[str, float]:
    """Text of a recording, and the seconds that transcribing took."""
    recognise: Any = pipeline("automatic-speech-recognition", model=str(directory), device="cpu")
    audio = read_audio(recording)
    began = time.perf_counter()
    text = recognise({"raw": audio, "sampling_rate": 16_000}, return_timestamps=True)["text"]
    return text.strip(), time.perf_counter() - began


def main() -> None:
    """Prune, then transcribe with both models."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="name on the Hugging Face hub, or directory")
    parser.add_argument("speech", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--keep", default="50%", help="share of the encoder's multiply-accumulates")
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--set", nargs="*", default=[], help="fields of the recipe to override")
    arguments = parser.parse_args()
    slimvox.register_auto_classes()
    *training, held_out = sorted(path for path in arguments.speech.iterdir() if path.is_file())
    result = slimvox.prune(
        arguments.model,
        training,
        arguments.out,
        recipe="whisper",
        target_macs=arguments.keep,
        max_steps=arguments.steps,
        overrides=[*SETTINGS, *arguments.set],
    )
    print(f"encoder: {result.parameters_dense / 1e6:.1f} -> {result.parameters / 1e6:.1f} M parameters")
    for name, directory in (("dense", arguments.model), ("pruned", result.directory)):
        text, seconds = transcribe(directory, held_out)
        print(f"{name}, {seconds:.1f} s: {text}")


if __name__ == "__main__":
    main()
