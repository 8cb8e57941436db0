"""The cost `latency`: a table that is measured on this machine, and kept for later runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from slimvox._version import __version__
from slimvox.costs import CostContext, CostKind, register_cost
from slimvox.measure.benchmark.contenders import check_backend
from slimvox.measure.benchmark.result import machine
from slimvox.measure.latency.in_runtime import measure_in_runtime
from slimvox.measure.latency.measure import measure_latency
from slimvox.measure.latency.table import TORCH, LatencyTable
from slimvox.util.environment import user_cache
from slimvox.util.errors import SlimvoxError
from slimvox.util.files import write_atomically
from slimvox.util.json_files import read_json_object

MOST_ERROR = 0.3
"""Median relative error above which a table is not kept, because another program ran while it was measured."""
FORMAT = 2
"""Number that changes with the way in which tables are measured."""
PACKAGES = ("torch", "onnxruntime", "openvino", "nncf")
"""Packages whose version affects the time of some runtime."""


def kept_table(context: CostContext, measure: Callable[[CostContext], LatencyTable]) -> LatencyTable:
    """The table that an earlier run measured under the same conditions, or a newly measured one, which is kept.

    The conditions are the dense encoder's shape, the length of the clip, the runtime, the number of threads, the
    processor and the versions of slimvox and of the runtimes. A file that is damaged counts for nothing.
    """
    path = table_path(context)
    try:
        table = LatencyTable.from_dict(read_json_object(path)["table"])
    except (SlimvoxError, OSError, ValueError, KeyError, TypeError):
        pass
    else:
        context.on_progress(f"computing times are those measured before ({path}; delete it to measure again)")
        return table
    table = measure(context)
    if table.error > MOST_ERROR:
        context.on_progress(
            f"the computing times do not fit together ({table.error:.0%} off): this machine is probably busy, so the"
            " target may be missed, and the next run measures again"
        )
        return table
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"table": table.to_dict(), **_conditions(context)}).encode())
    except OSError:
        context.on_progress(
            f"the computing times could not be kept in {path.parent}; the next run measures again"
        )
    return table


def table_path(context: CostContext) -> Path:
    """File of a table in the user's cache."""
    text = json.dumps(_conditions(context), sort_keys=True)
    return (
        user_cache() / "latency" / f"{context.runtime}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    )


def _conditions(context: CostContext) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "dense": context.dense.to_dict(),
        "seconds": context.seconds,
        "device": context.device.type,
        "runtime": context.runtime,
        "slimvox": __version__,
        "packages": {name: _version(name) for name in PACKAGES},
        "machine": machine(torch.get_num_threads()),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _measure(context: CostContext) -> LatencyTable:
    place = context.runtime if context.runtime != TORCH else str(context.device.type)
    context.on_progress(
        f"measuring how long encoders of this shape take here in {place}, {context.seconds:g} s of audio ..."
    )
    if context.runtime == TORCH:
        return measure_latency(context.dense, seconds=context.seconds, device=context.device)
    return measure_in_runtime(context.dense, context.runtime, seconds=context.seconds)


def _prepare(context: CostContext) -> LatencyTable:
    check_backend(context.runtime)
    table = kept_table(context, _measure)
    milliseconds = table.of_dense(context.dense) / 1e6
    context.on_progress(
        f"dense: {milliseconds:.3g} ms in {table.runtime} on {table.device}, {table.threads} threads;"
        f" the predicted speed-ups of encoders that were not used for the table are off by {table.error:.0%} (median)"
    )
    return table


register_cost(
    CostKind(
        name="latency",
        title="time for a clip of `target.seconds`, predicted from a table that the run measures on its machine",
        prepare=_prepare,
        from_dict=LatencyTable.from_dict,
        measured=True,
    )
)
