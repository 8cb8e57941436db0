"""Latency tables as files: kept for later runs on the same machine, or carried to another one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from slimvox.costs import BLOCK_KINDS
from slimvox.measure.benchmark.contenders import backend_names
from slimvox.measure.latency.table import LatencyTable
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.util.errors import SlimvoxError
from slimvox.util.files import write_atomically
from slimvox.util.json_files import read_json_object

FORMAT = 3
"""Number that changes with the way in which tables are measured."""
READABLE = (2, 3)
"""Formats that can be read; a kept table of an older one is measured again nevertheless."""
IRRELEVANT = ("family", "normalize_waveform", "layer_norm_eps")
"""Fields of an anatomy that computing time does not depend on."""


def write_table(path: Path, table: LatencyTable, dense: EncoderAnatomy) -> None:
    """Write a table.

    Args:
        path: JSON file; folders above it are created.
        table: the table.
        dense: anatomy of the dense encoder that it is for.

    Raises:
        OSError: if the file cannot be written.
    """
    content = {"format": FORMAT, "table": table.to_dict(), "dense": dense.to_dict()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(content, indent=1).encode())


def read_table(path: Path, dense: EncoderAnatomy) -> LatencyTable:
    """Read a table, possibly measured on another machine.

    Args:
        path: file by `write_table`.
        dense: anatomy of the dense encoder that the table must be for.

    Raises:
        SlimvoxError: if the file cannot be read, is not a table, or is one for another encoder.
    """
    data = read_json_object(path)
    if {"format", "table", "dense"} <= set(data) and data["format"] not in READABLE:
        raise SlimvoxError(
            f"{path} was measured by another version of slimvox, in another way: measure it again with `slimvox"
            " latency`"
        )
    try:
        table = LatencyTable.from_dict(data["table"])
        measured = EncoderAnatomy.from_dict(data["dense"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SlimvoxError(f"{path} is not a latency table; `slimvox latency` writes one") from error
    if table.runtime not in backend_names():
        raise SlimvoxError(
            f"{path} is for the runtime {table.runtime}, which this version of slimvox does not know"
        )
    missing = [title for kind, title in BLOCK_KINDS.items() if kind not in table.nanoseconds]
    if missing:
        raise SlimvoxError(f"{path} has no times of {missing[0]}; `slimvox latency` writes a whole table")
    if replace(measured, **{name: getattr(dense, name) for name in IRRELEVANT}) != dense:
        raise SlimvoxError(
            f"{path} was measured for an encoder of another shape: measure one for this model with `slimvox latency`"
        )
    return table
