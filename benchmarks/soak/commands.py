"""The commands of the soak, each a tiny version of what a user runs for days, and the data that they work on."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from transformers.models.wavlm.configuration_wavlm import WavLMConfig
from transformers.models.wavlm.modeling_wavlm import WavLMModel

RATE = 16_000
SLIMVOX = (sys.executable, "-m", "slimvox")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
RECIPE = (
    *("prune.steps=24", "finish.steps=16", "gates.ramp_steps=12", "gates.learning_rate=0.1"),
    *("data.seconds_per_batch=3.0", "data.min_seconds=0.5", "data.max_seconds=1.0"),
)
VOLATILE = ("seconds", "audio_seconds_per_second")
"""Fields of JSON files that hold times."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command that goes on where it was stopped."""

    name: str
    line: Callable[[Path], tuple[str, ...]]
    """The command line that writes to a folder."""
    processes: int = 1


def make_data(folder: Path) -> None:
    """Write a tiny random teacher, short noises, and a table of labelled tones."""
    if (folder / "tones.tsv").is_file():
        return
    random = np.random.default_rng(0)
    (folder / "speech").mkdir(parents=True, exist_ok=True)
    for number in range(24):
        noise = random.standard_normal(int(RATE * random.uniform(0.6, 1.5)))
        soundfile.write(folder / "speech" / f"{number:02}.wav", 0.1 * noise / np.abs(noise).max(), RATE)
    torch.manual_seed(0)
    config = WavLMConfig(
        hidden_size=48,
        num_attention_heads=4,
        num_hidden_layers=3,
        intermediate_size=96,
        conv_dim=(12, 16, 16, 16, 16),
        conv_kernel=(10, 5, 4, 4, 4),
        conv_stride=(5, 4, 4, 2, 2),
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )
    WavLMModel(config).save_pretrained(folder / "teacher")
    (folder / "tones").mkdir(exist_ok=True)
    rows = ["path\tsplit\tlabel"]
    for number in range(24):
        pitch = (400.0, 1000.0, 2200.0)[number % 3]
        tone = 0.3 * np.sin(2 * np.pi * pitch * np.arange(RATE // 2) / RATE)
        soundfile.write(
            folder / "tones" / f"{number}.wav", tone + 0.003 * random.standard_normal(len(tone)), RATE
        )
        rows.append(f"{number}.wav\t{('train', 'train', 'dev', 'test')[number % 4]}\t{'abc'[number % 3]}")
    (folder / "tones.tsv").write_text("\n".join(rows) + "\n")


def commands(data: Path) -> tuple[Command, ...]:
    """All commands of the soak."""
    teacher, speech = str(data / "teacher"), str(data / "speech")

    def prune(*options: str) -> Callable[[Path], tuple[str, ...]]:
        common = (
            "--recipe",
            "quick",
            "--checkpoint-seconds",
            "0",
            "--device",
            "auto",
            "--precision",
            "float32",
        )
        return lambda out: ("prune", teacher, speech, "--out", str(out), *common, *options, "--set", *RECIPE)

    def encode(out: Path) -> tuple[str, ...]:
        return ("encode", teacher, speech, "--out", str(out))

    def evaluate(out: Path) -> tuple[str, ...]:
        return (
            *("evaluate", teacher, "--data", str(data / "tones"), "--manifest", f"ks={data / 'tones.tsv'}"),
            *("--cache", str(out / "cache"), "--out", str(out / "scores")),
            *("--set", "ks.steps=40", "ks.learning_rates=0.01,0.001"),
        )

    one, several = prune(), prune("--sizes", "50%,28%")
    return (
        Command(name="prune", line=lambda out: (*SLIMVOX, *one(out))),
        Command(name="prune --sizes", line=lambda out: (*SLIMVOX, *several(out))),
        Command(name="encode", line=lambda out: (*SLIMVOX, *encode(out))),
        Command(name="evaluate", line=lambda out: (*SLIMVOX, *evaluate(out))),
        Command(
            name="torchrun prune", line=lambda out: (*TORCHRUN, "--module", "slimvox", *one(out)), processes=2
        ),
    )


def outputs(out: Path) -> dict[str, bytes]:
    """The files that a command left, by their paths, without what differs from run to run: times and machine logs."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.is_dir() or "tensorboard" in path.parts or path.name in ("lock", "settings.json"):
            continue
        content = path.read_bytes()
        if path.suffix == ".jsonl":
            content = b"\n".join(_without_times(line) for line in content.splitlines())
        elif path.suffix == ".json" and name != "config.json":
            content = _without_times(content)
        found[name] = content
    return found


def _without_times(text: bytes) -> bytes:
    content = json.loads(text)
    return json.dumps({key: value for key, value in content.items() if key not in VOLATILE}).encode()
