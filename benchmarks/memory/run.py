"""Memory and pace of a step of stage 1 of the `default` recipe.

    python benchmarks/memory/run.py base:48:48 base:48:16 base:640:16 large:64:16 large:64:16:on
    python benchmarks/memory/run.py --pace 3 base:48:48 base:48:16

A row is SHAPE:SECONDS:MICRO_BATCH_SECONDS[:on], where `on` turns activation checkpointing on. Weights and audio are
random: neither memory nor pace depends on them. Each row is measured in a process of its own; its peak is the largest
resident size (`ru_maxrss`; on a GPU, the most that torch's allocator gave out) over an update of the weights, with
gradients of zero, in which the optimisers take their memory, and the gradients of the step after it. On a GPU both are
timed three times, after a warm-up, and the medians shown. The hours are those of all steps of `default` at this pace.
With `--micro-batches N` only the first N micro-batches are computed, which takes less time and has the same peak. With
`--plan` the memory that a run would expect is measured too. `--pace ROUNDS` measures the gradients of the rows' steps
in turn, in one process, and prints medians: of the time by the clock, and of the processor's time, which other programs
on the machine change less.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.append(str(Path(__file__).parents[1]))

import torch
from stages import make_stage

from slimvox.audio import AudioBatch
from slimvox.checkpoint.transformers_reader import anatomy_from_config
from slimvox.pruning import memory
from slimvox.pruning.accelerator import Precision
from slimvox.pruning.micro_batches import Division, MicroBatches
from slimvox.pruning.recipe import load_recipe
from slimvox.pruning.stage import Stage
from slimvox.util.timing import wait_for

SHAPES = {
    "base": {},
    "large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
    },
}
"""Configurations of WavLM-Base+ and WavLM-Large, as far as they differ from the default one of `transformers`."""
CLIP_SECONDS = 15.6
TIMES = 3
"""Number of steps that are timed on a GPU."""
RECIPE = load_recipe("default")
HEADER = (
    "| shape | step, s | micro-batch, s | checkpointing | precision | computed micro-batches | expected, GiB |"
    " peak, GiB | audio s per s | update, s | hours of `default` |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True, kw_only=True)
class FirstParts(Division):
    """A division of which only the first parts are computed."""

    most: int

    def parts(self, clips: int, samples: int) -> list[slice]:
        """The first `most` parts."""
        return super().parts(clips, samples)[: self.most]


def stage_of(shape: str, precision: Precision, device: str) -> Stage:
    """Stage 1 of the `default` recipe."""
    settings = {"model_type": "wavlm", **SHAPES[shape]}
    anatomy = anatomy_from_config(settings, shape, normalize_waveform=False)
    return make_stage(anatomy, "default", precision, device)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table."""

    shape: str
    seconds: float
    division: FirstParts

    @classmethod
    def parse(cls, text: str, most: int) -> Row:
        """A row from SHAPE:SECONDS:MICRO_BATCH_SECONDS[:on]."""
        shape, seconds, micro, *recompute = text.split(":")
        division = FirstParts(seconds=float(micro), recompute=recompute == ["on"], most=most)
        return cls(shape=shape, seconds=float(seconds), division=division)

    def batch(self) -> AudioBatch:
        """Noise, in clips as long as the recipe's longest."""
        clips = max(1, int(self.seconds / CLIP_SECONDS))
        waveforms = 0.1 * torch.randn(clips, int(16_000 * self.seconds / clips))
        seconds = waveforms.numel() / 16_000
        return AudioBatch(
            waveforms=waveforms, seconds=seconds, step=0, slots=tuple(range(clips)), planned=clips
        )

    def computed_seconds(self, batch: AudioBatch) -> float:
        """Seconds of audio that are computed in a step."""
        clips = sum(part.stop - part.start for part in self.division.parts(*batch.waveforms.shape))
        return clips * batch.waveforms.shape[1] / 16_000


def timed_gradients(stage: Stage, row: Row, batch: AudioBatch) -> tuple[float, float]:
    """Seconds for the gradients of a step, by the clock and of the processor."""
    stage.micro_batches = MicroBatches(row.division)
    noise = stage._noise(batch, batch.slots)
    wait_for(stage.accelerator.device)
    began, busy = time.perf_counter(), time.process_time()
    stage._accumulate(batch, noise, batch.planned)
    wait_for(stage.accelerator.device)
    return time.perf_counter() - began, time.process_time() - busy


def timed_update(stage: Stage) -> float:
    """Seconds for an update of the weights with gradients of zero."""
    for parameter in stage.student.parameters():
        parameter.grad = torch.zeros_like(parameter)
    zero = torch.zeros((), device=stage.accelerator.device)
    wait_for(stage.accelerator.device)
    began = time.perf_counter()
    stage._update({"loss": zero, "distillation": zero})
    wait_for(stage.accelerator.device)
    return time.perf_counter() - began


def peak_bytes(device: torch.device) -> int:
    """Largest memory of this process so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(row: Row, precision: Precision, planned: bool, device: str) -> str:
    """A line of the table, measured in this process."""
    stage, division, expected = stage_of(row.shape, precision, device), row.division, "-"
    if planned:
        plan = memory.plan_steps(
            stage,
            clip_seconds=min(CLIP_SECONDS, row.seconds),
            micro_batch_seconds=division.seconds,
            recompute="on" if division.recompute else "off",
        )
        expected = f"{plan.expected_bytes / 2**30:.1f}"
    batch = row.batch()
    times = 1 if stage.accelerator.device.type == "cpu" else TIMES
    update = median(timed_update(stage) for _ in range(times))
    if times > 1:
        timed_gradients(stage, row, batch)  # kernels are chosen
    spent = median(timed_gradients(stage, row, batch)[0] for _ in range(times))
    peak = peak_bytes(stage.accelerator.device) / 2**30
    parts, pace = (
        Division(seconds=division.seconds).parts(*batch.waveforms.shape),
        row.computed_seconds(batch) / spent,
    )
    hours = sum(each.steps for each in (RECIPE.prune, RECIPE.finish)) * (
        RECIPE.data.seconds_per_batch / pace + update
    )
    return (
        f"| {row.shape} | {row.seconds:g} | {division.seconds:g} | {'on' if division.recompute else 'off'} |"
        f" {precision} | {min(division.most, len(parts))} of {len(parts)} | {expected} | {peak:.2f} |"
        f" {pace:.2f} | {update:.3g} | {hours / 3600:,.1f} |"
    )


def compare_pace(rows: list[Row], precision: Precision, rounds: int, device: str) -> None:
    """Print the median seconds of the rows' gradients, measured in turn."""
    stages = {shape: stage_of(shape, precision, device) for shape in dict.fromkeys(row.shape for row in rows)}
    batches = [row.batch() for row in rows]
    times: list[list[tuple[float, float]]] = [[] for _ in rows]
    for stage in stages.values():
        stage.rehearse(batches[0].waveforms[:1], False)  # kernels are set up
    for _ in range(rounds):
        for row, batch, seconds in zip(rows, batches, times, strict=True):
            seconds.append(timed_gradients(stages[row.shape], row, batch))
    for row, batch, seconds in zip(rows, batches, times, strict=True):
        middle, busy = (median(each) for each in zip(*seconds, strict=True))
        print(
            f"{row.shape}, {row.seconds:g} s in micro-batches of {row.division.seconds:g} s, checkpointing"
            f" {'on' if row.division.recompute else 'off'}: {middle:.1f} s by the"
            f" clock, {busy:.1f} s of the processor, {row.computed_seconds(batch) / middle:.2f} s of audio per second",
            flush=True,
        )


def main() -> None:
    """Measure the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="+")
    parser.add_argument("--precision", default="float32", choices=["float32", "bf16"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--micro-batches", type=int, default=10**9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--pace", type=int, metavar="ROUNDS")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = [Row.parse(text, given.micro_batches) for text in given.rows]
    if given.pace is not None:
        compare_pace(rows, given.precision, given.pace, given.device)
        return
    if given.here:
        print(measure(rows[0], given.precision, given.plan, given.device), flush=True)
        return
    print(HEADER, flush=True)
    options = [each for each in sys.argv[1:] if each not in given.rows]
    for text in given.rows:
        subprocess.run([sys.executable, __file__, text, "--here", *options], check=True)


if __name__ == "__main__":
    main()
