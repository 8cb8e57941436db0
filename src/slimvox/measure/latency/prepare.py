"""The cost `latency`: a table that is measured on this machine, and kept for later runs."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from slimvox._version import __version__
from slimvox.costs import Cost, CostContext, CostKind, register_cost
from slimvox.measure.benchmark.contenders import TRANSFORMERS, backend_names, check_backend
from slimvox.measure.benchmark.result import machine
from slimvox.measure.latency.file import FORMAT, read_table, write_table
from slimvox.measure.latency.in_runtime import measure_in_runtime
from slimvox.measure.latency.in_torch import measure_in_torch
from slimvox.measure.latency.table import MOST_ERROR, TORCH, LatencyTable
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.util.devices import CPU, torch_threads
from slimvox.util.environment import user_cache
from slimvox.util.errors import SlimvoxError

PACKAGES = ("torch", "onnxruntime", "openvino", "nncf")
"""Packages whose version affects the time of some runtime."""
SECONDS_PER_LINE = 30.0
"""Least time between two lines about the progress of a measurement."""
MOST_THREADS = 4
"""Maximum number of threads: a server that prunes has many more than encoders are used with, one clip at a time."""


def kept_table(context: CostContext, measure: Callable[[CostContext], LatencyTable]) -> LatencyTable:
    """The table that an earlier run measured under the same conditions, or a newly measured one, which is kept.

    The conditions are the dense encoder's shape, the length of the clip, the runtime, the number of threads, the
    processor and the versions of slimvox and of the runtimes. A file that is damaged counts for nothing.
    """
    path = table_path(context)
    try:
        table = read_table(path, context.dense)
    except SlimvoxError:
        pass
    else:
        context.on_progress(f"computing times are those measured before ({path}; delete it to measure again)")
        return table
    table = measure(context)
    if table.error > MOST_ERROR:
        context.on_progress(
            "the computing times are not kept, because they do not fit together; the next run measures again"
        )
        return table
    try:
        write_table(path, table, context.dense)
    except OSError:
        context.on_progress(
            f"the computing times could not be kept in {path.parent}; the next run measures again"
        )
    return table


def table_path(context: CostContext) -> Path:
    """File of a table in the user's cache."""
    known = {
        "format": FORMAT,
        "dense": context.dense.to_dict(),
        "seconds": context.seconds,
        "runtime": context.runtime,
        "slimvox": __version__,
        "packages": {name: _version(name) for name in PACKAGES},
        "machine": machine(default_threads()),
    }
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
    return user_cache() / "latency" / f"{context.runtime}-{digest[:16]}.json"


def _measure(context: CostContext) -> LatencyTable:
    context.on_progress(
        f"measuring how long encoders of this shape take on this machine's CPU in {context.runtime},"
        f" {context.seconds:g} s of audio ..."
    )
    told = time.monotonic()

    def tell(line: str) -> None:
        nonlocal told
        if time.monotonic() - told >= SECONDS_PER_LINE:
            told = time.monotonic()
            context.on_progress(line)

    return measured_table(context.dense, context.runtime, seconds=context.seconds, on_progress=tell)


def measured_table(
    dense: EncoderAnatomy,
    runtime: str,
    *,
    seconds: float,
    threads: int | None = None,
    device: torch.device = CPU,
    on_progress: Callable[[str], None] = lambda _: None,
) -> LatencyTable:
    """Measure a table in any runtime.

    Args:
        dense: anatomy of the dense encoder.
        runtime: backend of `slimvox benchmark`.
        seconds: length of the clip.
        threads: number of CPU threads; by default `default_threads()`.
        device: device for torch; other runtimes are measured on the CPU.
        on_progress: called with a short text about the current work.

    Raises:
        SlimvoxError: if the clip is shorter than a frame or longer than the encoder allows, or the runtime is unknown,
            not installed, or lacks its precision on this processor.
    """
    with torch_threads(threads or default_threads()):
        if runtime == TORCH:
            return measure_in_torch(dense, seconds=seconds, device=device)
        return measure_in_runtime(dense, runtime, seconds=seconds, on_progress=on_progress)


def default_threads() -> int:
    """Number of threads that tables are measured with unless another one is given."""
    return min(MOST_THREADS, torch.get_num_threads())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def check_runtime(runtime: str) -> None:
    """Raise SlimvoxError if times cannot be measured in a runtime, or packages or instructions for it are missing."""
    names = [name for name in backend_names() if name != TRANSFORMERS]
    if runtime not in names:
        raise SlimvoxError(f"`runtime` must be one of {', '.join(names)}, but is {runtime!r} instead")
    check_backend(runtime)


def _prepare(context: CostContext) -> Cost:
    """Measured on the CPU, whatever the device of the run: most encoders that are pruned on a GPU are used on a CPU."""
    table = context.given
    if table is None:
        check_runtime(context.runtime)
        table = kept_table(context, _measure)
    assert isinstance(table, LatencyTable)
    context.on_progress(table.summary(context.dense))
    return table


register_cost(
    CostKind(
        name="latency",
        title="time for a clip of `target.seconds`, predicted from a table: of this machine's CPU or `latency_table`",
        prepare=_prepare,
        from_dict=LatencyTable.from_dict,
        measured=True,
    )
)
