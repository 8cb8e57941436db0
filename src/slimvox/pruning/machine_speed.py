"""How fast encoders are where a run takes place: measured before it, to aim at a speed, and after it."""

from __future__ import annotations

from accelerate import Accelerator
from rich.console import Console

from slimvox.anatomy import EncoderAnatomy
from slimvox.encoder import SpeechEncoder
from slimvox.latency import LatencyTable, measure_latency, real_time_factors
from slimvox.pruning.processes import Processes
from slimvox.pruning.run_directory import RunDirectory


def latency_table(
    dense: EncoderAnatomy,
    seconds: float,
    directory: RunDirectory,
    accelerator: Accelerator,
    console: Console,
) -> LatencyTable:
    """The table of an interrupted run, or a newly measured one; the same in all processes.

    Args:
        dense: the encoder with everything in it.
        seconds: length of the clip.
        directory: the run's.
        accelerator: gives the device.
        console: told what takes so long.
    """

    def load_or_measure() -> LatencyTable:
        table = directory.load_latency()
        if table is not None and table.seconds == seconds:
            return table
        console.print(
            f"measuring how long encoders of this shape take here, {seconds:g} s of audio ...",
            highlight=False,
        )
        table = measure_latency(dense, seconds=seconds, device=accelerator.device)
        console.print(
            f"dense: {table.nanoseconds(dense) / 1e6:.3g} ms on {table.device}, {table.threads} threads;"
            f" the table misses encoders that it has not seen by {table.error:.0%} (median)",
            highlight=False,
        )
        return table

    return Processes(accelerator).on_main(load_or_measure)


def speed_up(encoder: SpeechEncoder, seconds: float) -> float:
    """How many times faster than its dense encoder it is, measured in turns; weights do not matter for that."""
    device = next(encoder.parameters()).device
    dense = SpeechEncoder(encoder.dense_anatomy).to(device).eval()
    factors = real_time_factors({"dense": dense, "pruned": encoder}, seconds=seconds)
    return factors["dense"] / factors["pruned"]
