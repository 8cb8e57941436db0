"""Speed of encoders on the machine of a run, measured before it to set a target, and after it."""

from __future__ import annotations

from statistics import median

import torch
from accelerate import Accelerator
from rich.console import Console

from slimvox.costs import Cost, CostContext, cost_kind
from slimvox.encoder import SpeechEncoder
from slimvox.measure.latency import real_time_factors
from slimvox.measure.latency.table import TORCH
from slimvox.measure.runtime import encoder_milliseconds
from slimvox.pruning.parts import PruningParts
from slimvox.pruning.processes import Processes
from slimvox.pruning.run_directory import RunDirectory
from slimvox.structures.anatomy import EncoderAnatomy


def prepare_cost(
    parts: PruningParts,
    kind: str,
    seconds: float,
    runtime: str,
    dense: EncoderAnatomy,
    directory: RunDirectory,
    accelerator: Accelerator,
    console: Console,
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
    """
    cost = cost_kind(kind)
    context = CostContext(
        dense=dense,
        seconds=seconds,
        runtime=runtime or TORCH,
        device=accelerator.device,
        on_progress=lambda line: console.print(line, highlight=False),
    )

    def load_or_measure() -> Cost:
        cost = directory.load_cost(kind)
        return parts.build_cost(kind, context) if cost is None else cost

    return (
        Processes(accelerator).on_main(load_or_measure) if cost.measured else parts.build_cost(kind, context)
    )


def speed_up(encoder: SpeechEncoder, seconds: float, runtime: str) -> float:
    """Speed-up over its dense encoder, from interleaved measurements; it does not depend on the weights.

    Args:
        encoder: the pruned encoder.
        seconds: length of the clip.
        runtime: backend of `slimvox benchmark`; torch if empty.
    """
    device = next(encoder.parameters()).device
    encoders = {"dense": SpeechEncoder(encoder.dense_anatomy).to(device).eval(), "pruned": encoder}
    if not runtime or runtime == TORCH:
        times = real_time_factors(encoders, seconds=seconds)
    else:
        runs = encoder_milliseconds(
            {name: each.cpu() for name, each in encoders.items()},
            backend=runtime,
            threads=torch.get_num_threads(),
            seconds=seconds,
        )
        encoder.to(device)
        times = {name: median(each) for name, each in runs.items()}
    return times["dense"] / times["pruned"]
