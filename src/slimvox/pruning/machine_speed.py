"""Speed of encoders on the machine of a run, measured before it to set a target, and after it."""

from __future__ import annotations

import copy

import torch
from accelerate import Accelerator
from rich.console import Console

from slimvox.costs import Cost, CostContext, cost_kind
from slimvox.encoder import SpeechEncoder
from slimvox.measure.benchmark.contenders import check_backend
from slimvox.measure.benchmark.result import place_of
from slimvox.measure.latency import LatencyTable, real_time_factors
from slimvox.measure.latency.table import TORCH
from slimvox.measure.runtime import encoder_milliseconds
from slimvox.pruning.parts import PruningParts
from slimvox.pruning.processes import Processes
from slimvox.pruning.run_directory import RunDirectory
from slimvox.pruning.settings import TargetSettings
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.util.devices import torch_threads
from slimvox.util.errors import SlimvoxError
from slimvox.util.timing import relative_times


def prepare_cost(
    parts: PruningParts,
    kind: str,
    seconds: float,
    runtime: str,
    dense: EncoderAnatomy,
    directory: RunDirectory,
    accelerator: Accelerator,
    console: Console,
    given: Cost | None = None,
) -> Cost:
    """The cost that an interrupted run measured, or a newly prepared one; the same in all processes.

    Args:
        parts: parts of the run, which build the cost.
        kind: name of the kind of cost.
        seconds: length in seconds of the clip that is measured.
        runtime: backend of `slimvox benchmark` to measure in; torch if empty.
        dense: anatomy of the dense encoder.
        directory: directory of the run.
        accelerator: gives the device.
        console: shows progress where the machine is measured.
        given: cost to be used instead of one that is measured.
    """
    cost = cost_kind(kind)
    context = CostContext(
        dense=dense,
        seconds=seconds,
        runtime=runtime or TORCH,
        device=accelerator.device,
        on_progress=lambda line: console.print(line, highlight=False, soft_wrap=True),
        given=given,
    )

    def load_or_measure() -> Cost:
        cost = directory.load_cost(kind) if given is None else None
        return parts.build_cost(kind, context) if cost is None else cost

    return (
        Processes(accelerator).on_main(load_or_measure) if cost.measured else parts.build_cost(kind, context)
    )


def measured_speed_up(encoder: SpeechEncoder, target: TargetSettings, cost: Cost) -> float | None:
    """Speed-up over its dense encoder, from interleaved measurements; it does not depend on the weights.

    Args:
        encoder: the pruned encoder.
        target: settings with the length of the clip and the runtime.
        cost: cost that the run limits.

    Returns:
        The speed-up on the CPU or, if the cost is a latency table, on the device that it was measured on with as many
        threads; None if that was another machine, or the runtime is not installed.
    """
    device, threads = "cpu", torch.get_num_threads()
    if isinstance(cost, LatencyTable):
        device, threads = cost.device, cost.threads
        there = device == "cpu" or (device == "cuda" and torch.cuda.is_available())
        if not there or (cost.hardware and cost.hardware != place_of(device)):
            return None
        try:
            check_backend(target.runtime or TORCH)
        except SlimvoxError:
            return None
    encoders = {
        "dense": SpeechEncoder(encoder.dense_anatomy).to(device).eval(),
        "pruned": copy.deepcopy(encoder).to(device),
    }
    if not target.runtime or target.runtime == TORCH:
        with torch_threads(threads):
            factors = real_time_factors(encoders, seconds=target.seconds)
        return factors["dense"] / factors["pruned"]
    runs = encoder_milliseconds(encoders, backend=target.runtime, threads=threads, seconds=target.seconds)
    return 1 / relative_times(runs, "dense")["pruned"]


def table_place(cost: Cost) -> str | None:
    """Runtime, threads and machine of a latency table; None for other costs."""
    return cost.place if isinstance(cost, LatencyTable) else None


def predicted_speed_up(encoder: SpeechEncoder, cost: Cost) -> float | None:
    """Speed-up over its dense encoder by a latency table; None if the cost that the run limits is not one."""
    if not isinstance(cost, LatencyTable):
        return None
    return cost.of_dense(encoder.dense_anatomy) / cost.of(encoder.anatomy)
