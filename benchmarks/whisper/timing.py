"""Measure the time of the encoders of `run.py` and of whole transcriptions in float32 and int8 (interleaved).

    python benchmarks/whisper/timing.py DATA --out RUNS [--rounds 7]

Clips are transcribed one at a time. All models take turns, and medians over the rounds are compared, so other work on
the machine changes ratios less than times. int8 is the encoder alone as `slimvox export --int8` writes it, in
onnxruntime, whatever its error. Results are added to RUNS/speed.json.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from arms import ARMS, ON_A_GPU
from encoders import load_encoder
from scoring import SETS
from torch import Tensor
from windows import clips_of

import slimvox
from slimvox.audio import read_audio
from slimvox.checkpoint import load
from slimvox.evaluation.transcriber import transcriber_of
from slimvox.evaluation.upstreams import EncoderUpstream, load_upstream
from slimvox.util.files import write_atomically
from slimvox.util.timing import seconds_in_turns

WINDOWS_SECONDS = (15.0, 30.0)
TRANSCRIBED = 3
"""Clips that are transcribed in each round."""


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="directory of Whisper base; by default that of run.py")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    out = arguments.out
    model = arguments.model or out / "whisper-base"
    teacher = load(model)
    encoders = {"dense": teacher}
    for arm in (*ARMS, *ON_A_GPU):
        folder = out / "runs" / f"{arm.name}-0"
        if (
            arm.trained
            and arm.steps_factor == 1
            and (encoder := load_encoder(arm, folder, teacher)) is not None
        ):
            encoders[arm.name] = encoder
    clips = clips_of(arguments.data, SETS[0], "test")[:TRANSCRIBED]
    waveforms = [read_audio(clip.path) for clip in clips]
    speeds: dict[str, dict[str, float]] = {name: {} for name in encoders}
    for seconds in WINDOWS_SECONDS:
        window = torch.zeros(1, round(16_000 * seconds))
        window[0, : len(waveforms[0])] = torch.from_numpy(waveforms[0])
        calls: dict[str, Callable[[], Any]] = {
            name: partial(encoder, window) for name, encoder in encoders.items()
        }
        add(speeds, f"encoder, {seconds:g} s window", in_turns(calls, arguments.rounds))
        calls = {name: whole(encoder, name, waveforms, seconds, model) for name, encoder in encoders.items()}
        times = in_turns(calls, max(1, arguments.rounds // 2))
        add(speeds, f"whole, {seconds:g} s window", {name: each / len(clips) for name, each in times.items()})
    window = torch.zeros(1, round(16_000 * WINDOWS_SECONDS[0]))
    calls = {
        name: int8(folder, window)
        for name in encoders
        if name == "dense" or (out / "runs" / f"{name}-0" / "config.json").is_file()
        for folder in [model if name == "dense" else out / "runs" / f"{name}-0"]
    }
    add(speeds, f"encoder in int8, {WINDOWS_SECONDS[0]:g} s window", in_turns(calls, arguments.rounds))
    content = {"seconds": speeds, "threads": torch.get_num_threads(), "load": os.getloadavg()[0]}
    write_atomically(out / "speed.json", (json.dumps(content, indent=1) + "\n").encode())
    print(json.dumps(content, indent=1))


def whole(
    encoder: slimvox.SpeechEncoder, name: str, waveforms: list[Any], seconds: float, model: Path
) -> Callable[[], None]:
    """Transcribes all clips, one at a time."""
    encoder.origin = model  # whose decoder transcribes
    transcribe = transcriber_of(EncoderUpstream(encoder, name), window_seconds=seconds, most_tokens=100)

    def call() -> None:
        for waveform in waveforms:
            transcribe([waveform], "en")

    return call


def int8(directory: Path, window: Tensor) -> Callable[[], Any]:
    """Runs the encoder as an int8 ONNX file, which is exported into its directory if it is not there."""
    file = directory / "encoder-int8.onnx"
    if not file.is_file():
        slimvox.export(directory, file, int8=True, max_error=1.0)
    upstream = load_upstream(file)
    return partial(upstream, window)


def in_turns(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each call, after a round that is not counted."""
    with torch.inference_mode():
        return {name: median(each) for name, each in seconds_in_turns(calls, rounds).items()}


def add(speeds: dict[str, dict[str, float]], what: str, times: dict[str, float]) -> None:
    """Add a column of times."""
    for name, seconds in times.items():
        speeds[name][what] = round(seconds, 4)


if __name__ == "__main__":
    main()
