"""Phases of a step of stage 1 of the `default` recipe, in bf16: their times, and the operations that take longest.

    python benchmarks/memory/phases.py base:640:640 large:160:160

A row is SHAPE:SECONDS:MICRO_BATCH_SECONDS, as in run.py; only one micro-batch is computed. A phase is timed by the
clock, with the device idle before and after it (median of three), and profiled once. If the clock of a GPU shows far
more than the sum of the operations, the host takes longer to launch kernels than the device to compute them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median

import torch
from run import Row, stage_of, timed_update
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from slimvox.util.timing import seconds_in_turns, wait_for

TIMES = 3


def phases(row: Row, device: str) -> dict[str, Callable[[], object]]:
    """Functions that compute one phase each."""
    stage, batch = stage_of(row.shape, "bf16", device), row.batch()
    (part, *_) = row.division.parts(*batch.waveforms.shape)
    waveforms, slots = batch.waveforms[part].to(stage.accelerator.device), batch.slots[part]
    noise = stage._noise(batch, batch.slots).part(slots, waveforms.device)

    @torch.no_grad()
    def teacher() -> object:
        with stage.accelerator.autocast():
            return stage.teacher(waveforms)

    expected = teacher()

    def student() -> object:
        with stage.accelerator.autocast():
            return stage.student(waveforms, expected, noise=noise, target_sparsity=0.1)["loss"]

    def gradients() -> None:
        stage.forget_gradients()
        stage.accelerator.backward(student())

    return {
        "teacher": teacher,
        "student": student,
        "student and its gradients": gradients,
        "update": lambda: timed_update(stage),
    }


def operations(phase: Callable[[], object], device: torch.device) -> list[tuple[str, float, int]]:
    """Operations of a phase with their milliseconds on the device and their number of calls, the longest first."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        phase()
        wait_for(device)
    on_cpu = device.type == "cpu"
    found = [
        (
            event.key,
            (event.self_cpu_time_total if on_cpu else event.self_device_time_total) / 1_000,
            event.count,
        )
        for event in profiler.key_averages()
        if event.device_type != DeviceType.CUDA  # kernels count for the operations that launch them
    ]
    return sorted((each for each in found if each[1] > 0), key=lambda each: -each[1])


def main() -> None:
    """Print a table for each row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="+")
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--most", type=int, default=12, help="number of operations shown for each phase")
    given = parser.parse_args()
    device = torch.device(given.device)
    for text in given.rows:
        print(f"{text} on {torch.cuda.get_device_name() if device.type == 'cuda' else 'a CPU'}")
        for name, phase in phases(Row.parse(text, 1), given.device).items():
            seconds = median(seconds_in_turns({name: phase}, TIMES, device)[name])
            found = operations(phase, device)
            busy, calls = sum(each[1] for each in found), sum(each[2] for each in found)
            print(f"  {name}: {1_000 * seconds:.1f} ms, of which {busy:.1f} ms in {calls} operations")
            for operation, milliseconds, count in found[: given.most]:
                print(f"    {milliseconds:8.2f} ms {count:6d}  {operation}")


if __name__ == "__main__":
    main()
