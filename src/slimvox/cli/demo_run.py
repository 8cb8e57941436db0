"""The demo: prune the embedded teacher on the embedded audio and compare."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from slimvox.checkpoint import load
from slimvox.comparison.distance import Distance
from slimvox.costs import macs
from slimvox.embedded import audio_files
from slimvox.measure.latency import real_time_factors
from slimvox.pruning import Control, PruneResult, prune
from slimvox.util.errors import SlimvoxError
from slimvox.util.output_paths import writing
from slimvox.util.quantities import short_number
from slimvox.util.validation import Count, Seed

ARMS: tuple[tuple[str, str, Control | None], ...] = (
    ("pruned", "learned gates", None),
    ("random", "random gates", "random"),
    ("top-layers", "top layers dropped", "top-layers"),
)
"""Directory name, title and control of each run."""
SECONDS, ROUNDS = 10.0, 7
"""Clip length in seconds and number of rounds for measuring real-time factors."""
MARKER = ".slimvox-demo"
"""Name of an empty file that marks a directory as a demo's, so that a later demo may replace it."""


def run_demo(
    out: Path = Path("runs/demo"), *, max_steps: Count | None = None, seed: Seed = 0, console: Console
) -> dict[str, PruneResult]:
    """Run the three arms and print a table.

    Args:
        out: directory for the pruned encoder and the two baselines; results of an earlier demo are replaced.
        max_steps: maximum number of training steps per run, for a quick look.
        seed: random seed for gates, batches and baselines.
        console: where to print.

    Raises:
        SlimvoxError: if `out` was not written by a demo.
    """
    _make_room(out)
    began = time.monotonic()
    results: dict[str, PruneResult] = {}
    for name, title, control in ARMS:
        console.rule(title)
        results[name] = prune(
            "embedded",
            audio_files("train"),
            out / name,
            held_out=audio_files("test"),
            recipe="quick",
            max_steps=max_steps,
            seed=seed,
            control=control,
            console=console,
        )
    teacher = load("embedded")
    encoders = {"dense": teacher, **{name: result.encoder for name, result in results.items()}}
    factors = real_time_factors(encoders, seconds=SECONDS, rounds=ROUNDS)
    table = Table(title="The embedded teacher, dense and pruned", title_justify="left")
    for column in ("", "parameters", "MACs/10 s", "real-time factor", "relative error", "1 - cosine"):
        table.add_column(column, justify="left" if not column else "right")
    nothing = Distance(relative_error=0.0, cosine=0.0, seconds=0.0)
    rows = [("dense", "dense", nothing)]
    rows += [(name, title, results[name].distance_after_finish or nothing) for name, title, _ in ARMS]
    for name, title, distance in rows:
        encoder = encoders[name]
        table.add_row(
            title,
            short_number(encoder.parameter_count),
            short_number(macs(encoder.anatomy)),
            f"{factors[name]:.4f} ({factors['dense'] / factors[name]:.1f}x)",
            f"{distance.relative_error:.3f}",
            f"{distance.cosine:.3f}",
        )
    console.print(table)
    held_out = results["pruned"].distance_after_finish
    console.print(
        "Relative error and 1 - cosine: distance to the teacher's hidden states, mean over all layers, on"
        f" {held_out.seconds if held_out else 0:.0f} s of held-out speech (0 is a perfect copy; an error"
        " of 1 is no better than the mean). Real-time factor: computing time per second of audio, in brackets how"
        f" many times faster than dense; medians of {ROUNDS} interleaved rounds on {SECONDS:g} s of audio,"
        f" {torch.get_num_threads()} threads."
    )
    console.print(f"{(time.monotonic() - began) / 60:.1f} minutes; the pruned encoder: {out / 'pruned'}")
    return results


def _make_room(out: Path) -> None:
    """Remove the results of an earlier demo, and nothing else."""
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / MARKER).is_file())):
        raise SlimvoxError(f"`--out` {out} was not written by a demo; give another directory")
    with writing(f"`--out` {out}"):
        if out.is_dir():
            shutil.rmtree(out)
        out.mkdir(parents=True)
        (out / MARKER).touch()
