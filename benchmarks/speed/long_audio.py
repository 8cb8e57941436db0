"""`slimvox encode` on an hour of audio: real-time factor, and peak memory beside that of a few minutes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import wave
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from slimvox.measure.benchmark.contenders import noise
from slimvox.structures.anatomy import SAMPLE_RATE_HZ

MINUTES = (2, 60)


def table(models: Mapping[str, str], threads: int) -> str:
    """Markdown: seconds on the clock, real-time factor and peak memory of a process of its own for each length.

    The last hidden state is written, in float16; chunks are those of `slimvox encode`, start-up is included.

    Args:
        models: models by name.
        threads: number of CPU threads.
    """
    lines = [
        "| encoder | audio | time | real-time factor | peak memory | file |",
        "|---" * 6 + "|",
    ]
    with TemporaryDirectory() as folder:
        for minutes in MINUTES:
            audio = Path(folder) / f"{minutes}.wav"
            _write(audio, minutes)
            for name, model in models.items():
                out = Path(folder) / f"{name}-{minutes}"
                seconds, memory = _encode(model, audio, out, threads)
                size = sum(each.stat().st_size for each in out.rglob("*") if each.is_file())
                lines.append(
                    f"| {name} | {minutes} min | {seconds:.0f} s | {seconds / (60 * minutes):.4f} |"
                    f" {memory / 2**20:.0f} MiB | {size / 1e6:.0f} MB |"
                )
    return (
        "\n".join(lines) + "\n\nThe last hidden state of noise, written by `slimvox encode --dtype float16`;"
        " one run each, start-up included."
    )


def _encode(model: str, audio: Path, out: Path, threads: int) -> tuple[float, int]:
    """Seconds and peak memory in bytes of `slimvox encode`."""
    from slimvox.checkpoint import load

    last = len(load(model).anatomy.layers)
    command = [sys.executable, "-m", "slimvox", "encode", model, str(audio), "--out", str(out)]
    began = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--layers", str(last), "--dtype", "float16", "--device", "cpu"],
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"slimvox encode failed with status {process.returncode}")
    return time.perf_counter() - began, usage.ru_maxrss * 1024


def _write(path: Path, minutes: int) -> None:
    """A file of noise, 16 kHz, 16 bit."""
    minute = (noise(1, 60 * SAMPLE_RATE_HZ)[0] * 32767).clip(-32768, 32767).astype(np.int16).tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        for _ in range(minutes):
            file.writeframes(minute)
