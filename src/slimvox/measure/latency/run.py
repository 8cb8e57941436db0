"""`measure_latency`: the latency table of a model on this machine, for pruning here or elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from slimvox.checkpoint import Model, on_disk
from slimvox.checkpoint.resolve import find_anatomies
from slimvox.measure.latency.file import write_table
from slimvox.measure.latency.prepare import check_runtime, measured_table
from slimvox.measure.latency.table import TORCH, LatencyTable
from slimvox.util.devices import Device, find_device
from slimvox.util.environment import hub_token
from slimvox.util.errors import SlimvoxError
from slimvox.util.output_paths import check_output_file, writing
from slimvox.util.validation import Seconds, Threads, checked_arguments


@checked_arguments
def measure_latency(
    model: Model,
    out: str | Path | None = None,
    *,
    runtime: str = TORCH,
    seconds: Seconds = 10.0,
    threads: Threads | None = None,
    device: Device = "cpu",
    token: str | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> LatencyTable:
    """Measure how long encoders of a model's shape take on this machine, as a table for `prune`.

    With the table, `prune(..., target_speed="4x", latency_table=out)` prunes for this machine on another one, such as a
    server with a GPU. Two to three dozen encoders of random sizes and weights are timed, which takes a minute or more
    in torch and about five more where they are exported; nothing else should run meanwhile. Only the configuration of
    the model is read, not its weights.

    Args:
        model: model: `embedded`, a local directory, or a model id on the Hugging Face hub, also MODEL@REVISION. For a
            pruned model, the dense encoder that it was pruned from is measured. In Python also an encoder or a model of
            `transformers`.
        out: JSON file to write the table to; by default, no file is written.
        runtime: runtime to measure in: torch, torch-bf16, onnx, onnx-int8, openvino, openvino-bf16 or openvino-int8.
        seconds: length of the clip in seconds.
        threads: number of CPU threads; by default as many as torch uses, at most four.
        device: device to measure on; runtimes other than torch are measured on the CPU only.
        token: access token for the hub; by default the one in HF_TOKEN, or the one that `hf auth login` stored.
        on_progress: called with a short text about the current work.

    Returns:
        The table, which predicts the time of any encoder pruned from the model.

    Raises:
        SlimvoxError: if there is no such model, the model cannot encode clips of this length, the runtime is unknown,
            not installed or not for this device, or the file cannot be written.
    """
    path = None if out is None else Path(out).expanduser()
    if path is not None:
        check_output_file(path, "out")
    place = find_device(device)
    check_runtime(runtime)
    if runtime != TORCH and place.type != "cpu":
        raise SlimvoxError(
            f"`runtime` {runtime} is measured on the CPU only: leave out `device`, or choose the runtime {TORCH}"
        )
    with hub_token(token), on_disk(model) as name:
        _, dense = find_anatomies(str(name))
    on_progress(f"measuring {seconds:g} s of audio in {runtime}")
    table = measured_table(
        dense, runtime, seconds=seconds, threads=threads, device=place, on_progress=on_progress
    )
    if path is not None:
        with writing(path):
            write_table(path, table, dense)
    return table
