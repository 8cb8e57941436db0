"""Latency tables as files: kept for later runs on the same machine, or carried to another one."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from slimvox._version import __version__
from slimvox.measure.benchmark.result import machine
from slimvox.measure.latency.table import LatencyTable
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.util.errors import SlimvoxError
from slimvox.util.files import write_atomically
from slimvox.util.json_files import read_json_object

FORMAT = 2
"""Number that changes with the way in which tables are measured."""
PACKAGES = ("torch", "onnxruntime", "openvino", "nncf")
"""Packages whose version affects the time of some runtime."""


def conditions(
    dense: EncoderAnatomy, *, seconds: float, device: str, runtime: str, threads: int
) -> dict[str, Any]:
    """What a table that is measured on this machine depends on, as JSON types.

    Args:
        dense: anatomy of the dense encoder.
        seconds: length of the clip.
        device: device, such as `cpu`.
        runtime: backend of `slimvox benchmark`.
        threads: number of CPU threads.
    """
    return {
        "format": FORMAT,
        "dense": dense.to_dict(),
        "seconds": seconds,
        "device": device,
        "runtime": runtime,
        "slimvox": __version__,
        "packages": {name: _version(name) for name in PACKAGES},
        "machine": machine(threads, device),
    }


def write_table(path: Path, table: LatencyTable, dense: EncoderAnatomy) -> None:
    """Write a table that was measured on this machine, with its conditions.

    Args:
        path: JSON file; folders above it are created.
        table: the table.
        dense: anatomy of the dense encoder that it is for.

    Raises:
        OSError: if the file cannot be written.
    """
    known = conditions(
        dense, seconds=table.seconds, device=table.device, runtime=table.runtime, threads=table.threads
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps({"table": table.to_dict(), **known}, indent=1).encode())


def read_table(path: Path, dense: EncoderAnatomy) -> LatencyTable:
    """Read a table, possibly measured on another machine.

    Args:
        path: file by `write_table`.
        dense: anatomy of the dense encoder that the table must be for.

    Raises:
        SlimvoxError: if the file cannot be read, is not a table, or is one for another encoder.
    """
    data = read_json_object(path)
    try:
        table = LatencyTable.from_dict(data["table"])
        shape, format = data["dense"], data["format"]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SlimvoxError(f"{path} is not a latency table; `slimvox latency` writes one") from error
    if format != FORMAT:
        raise SlimvoxError(
            f"{path} was measured by another version of slimvox, in another way: measure it again with `slimvox"
            " latency`"
        )
    if shape != json.loads(json.dumps(dense.to_dict())):
        raise SlimvoxError(
            f"{path} was measured for an encoder of another shape: measure one for this model with `slimvox latency`"
        )
    return table


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
