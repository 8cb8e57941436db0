"""Choice of micro-batches from the memory and time of one clip."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import torch

from slimvox.pruning.micro_batches import Division, no_clip_fits, ran_out_of_memory, release_memory
from slimvox.pruning.progress import clock
from slimvox.pruning.stage import Stage
from slimvox.structures import structure
from slimvox.structures.anatomy import SAMPLE_RATE_HZ

Recompute = Literal["auto", "on", "off"]
USABLE_SHARE = 0.8
"""Maximum share of the free memory for the expected memory of a step."""
CPU_SECONDS = 16.0
"""Default maximum audio in a micro-batch on a CPU, where larger ones are not faster."""
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, kw_only=True)
class PassCost:
    """Cost of the forward and backward pass of one clip through teacher and student."""

    clip_bytes: int
    """Memory for the clip."""
    constant_bytes: int
    """Memory for gradients and masked weights, regardless of the number of clips."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """Division of the steps of a stage, and their expected memory and speed."""

    division: Division
    expected_bytes: int
    """Peak memory of a process."""
    free_bytes: int
    """Memory available to a process before the stage, in addition to the memory that it uses."""
    audio_rate: float
    """Seconds of audio per second over all processes, without the optimisers' part of a step."""

    def describe(self, step_seconds: float, steps: int) -> str:
        """Lines for the console with the expected memory and speed, and the options that change them."""
        division = self.division
        left = clock(steps * step_seconds / self.audio_rate)
        return (
            f"micro-batches of up to {division.seconds:.1f} s"
            f" {'with' if division.recompute else 'without'} activation checkpointing\n"
            f"  memory: {self.expected_bytes / 2**30:.1f} GiB expected per process,"
            f" {self.free_bytes / 2**30:.1f} GiB free"
            " (change with `--micro-batch-seconds`, `--checkpoint-activations`)\n"
            f"  time: about {self.audio_rate:.1f} s of audio per second, {left} for {steps} steps of up to"
            f" {step_seconds:.0f} s, without the updates of the weights"
            " (change with `--max-steps`, `--hours`, `--set data.seconds_per_batch`, `--precision`, more processes)"
        )


def plan_steps(
    stage: Stage,
    *,
    clip_seconds: float,
    micro_batch_seconds: float | None = None,
    recompute: Recompute = "auto",
    earlier: Division | None = None,
) -> StepPlan:
    """Choose a division for a stage, the same in all processes.

    Args:
        stage: stage before its first step; it is not changed.
        clip_seconds: length of the longest clips.
        micro_batch_seconds: audio in a micro-batch; None to choose it.
        recompute: use of activation checkpointing.
        earlier: division that the stage had before it was interrupted.

    Raises:
        SlimvoxError: if not even one clip fits.
    """
    seconds = earlier.seconds if micro_batch_seconds is None and earlier is not None else micro_batch_seconds
    device = stage.accelerator.device

    def choose() -> StepPlan:
        used, free = used_memory(device), free_memory(device)
        recomputes = recompute == "on" if recompute != "auto" or earlier is None else earlier.recompute
        cost = None if recomputes else _pass_cost(stage, clip_seconds, False)
        if not recomputes and recompute == "auto":
            recomputes = cost is None or _fitting_clips(stage, cost, free) < _clips(seconds, clip_seconds)
        if recomputes:
            cost = _pass_cost(stage, clip_seconds, True)
        if cost is None:
            raise no_clip_fits(clip_seconds, recomputes)
        chosen = seconds
        if chosen is None:
            chosen = max(1, _fitting_clips(stage, cost, free)) * clip_seconds
            if device.type == "cpu":
                chosen = min(chosen, max(CPU_SECONDS, clip_seconds))
        needed = cost.constant_bytes + optimiser_bytes(stage) + _clips(chosen, clip_seconds) * cost.clip_bytes
        return StepPlan(
            division=Division(seconds=chosen, recompute=recomputes),
            expected_bytes=used + needed,
            free_bytes=free,
            audio_rate=clip_seconds / cost.seconds,
        )

    plans = stage.processes.gather(choose)
    return StepPlan(
        division=Division(
            seconds=min(plan.division.seconds for plan in plans),
            recompute=any(plan.division.recompute for plan in plans),
        ),
        expected_bytes=max(plan.expected_bytes for plan in plans),
        free_bytes=min(plan.free_bytes for plan in plans),
        audio_rate=len(plans) * min(plan.audio_rate for plan in plans),
    )


def _fitting_clips(stage: Stage, cost: PassCost, free: int) -> int:
    """Number of clips that a micro-batch may have."""
    left = USABLE_SHARE * free - cost.constant_bytes - optimiser_bytes(stage)
    return int(left / max(1, cost.clip_bytes))


def _clips(seconds: float | None, clip_seconds: float) -> int:
    """Number of the longest clips in a micro-batch; one if its length is still to be chosen."""
    return 1 if seconds is None else max(1, int(seconds / clip_seconds + 1e-6))


def _pass_cost(stage: Stage, clip_seconds: float, recompute: bool) -> PassCost | None:
    """Measure one clip of noise; None if even that does not fit.

    There are two passes: the first sets up kernels, and the second is timed while the gradients of the first exist.
    """
    device, student = stage.accelerator.device, stage.student
    samples = max(stage.teacher.anatomy.receptive_field, int(clip_seconds * SAMPLE_RATE_HZ))
    waveforms = 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(0))
    try:
        with peak_memory(device) as peak:
            stage.rehearse(waveforms, recompute)
            _synchronise(device)
            began = time.perf_counter()
            stage.rehearse(waveforms, recompute)
            _synchronise(device)
            seconds = time.perf_counter() - began
        gradients = sum(each.grad.nbytes for each in student.parameters() if each.grad is not None)
    except Exception as error:
        if not ran_out_of_memory(error):
            raise
        return None
    finally:
        stage.forget_gradients()
        release_memory()
    masked: set[str] = set()
    if student.gates is not None:
        for address in student.gates.layout.slices:
            rows = structure(address.structure).scaled(student.encoder.anatomy, address.index)
            masked.update(each.parameter for each in rows)
    weights = dict(student.encoder.named_parameters())
    constant = gradients + sum(weights[name].nbytes for name in masked & weights.keys())
    return PassCost(
        clip_bytes=max(1, peak[0] - constant), constant_bytes=constant, seconds=max(seconds, 1e-6)
    )


def optimiser_bytes(stage: Stage) -> int:
    """Memory that the optimisers will still allocate for their state."""
    total = 0
    for name, optimiser in stage.optimisers.items():
        held = 1 if name == "matrices" else 2
        for group in optimiser.param_groups:
            for parameter in group["params"]:
                if not optimiser.state.get(parameter):
                    total += held * parameter.numel() * parameter.element_size()
    return total


def used_memory(device: torch.device) -> int:
    """Memory that this process uses, on a device or of the machine."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.current_allocated_memory()
    return int(psutil.Process().memory_info().rss)


def free_memory(device: torch.device) -> int:
    """Memory that this process may still allocate, on a device or of the machine.

    On a CPU it is the smaller of the free memory of the machine and of the control group (container), divided by the
    number of processes that a launcher started on the machine.
    """
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    if device.type == "mps":
        return max(0, torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    free = int(psutil.virtual_memory().available)
    group = _group_memory(CGROUP)
    if group is not None:
        free = min(free, group)
    return free // int(os.environ.get("LOCAL_WORLD_SIZE") or 1)


def _group_memory(folder: Path) -> int | None:
    """Memory that is left in a control group (version 2 or 1); None if there is no limit."""
    names = (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    )
    for limit, usage, statistics, reclaimable in names:
        try:
            most = (folder / limit).read_text().strip()
            used = int((folder / usage).read_text())
            lines = (line.split() for line in (folder / statistics).read_text().splitlines())
            cached = next((int(value) for name, value in lines if name == reclaimable), 0)
        except (OSError, ValueError):
            continue
        if most.isdecimal() and int(most) < 2**60:
            return max(0, int(most) - used + cached)
    return None


@contextmanager
def peak_memory(device: torch.device) -> Iterator[list[int]]:
    """Measure the peak memory within the context.

    Yields:
        A list that holds, after the context, the bytes beyond those at its start.
    """
    peak = [0]
    before = used_memory(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        peak[0] = torch.cuda.max_memory_allocated(device) - before
        return
    stopped = threading.Event()

    def watch() -> None:
        while not stopped.wait(0.005):
            peak[0] = max(peak[0], used_memory(device) - before)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stopped.set()
        thread.join()
        peak[0] = max(peak[0], used_memory(device) - before)


def _synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()
