"""Export of encoders to files that run without slimvox; see `docs/extending/format.md` for how to add a format."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from slimvox.exporters.base import (
    ExportFormat,
    Program,
    export_format,
    export_format_names,
    export_formats,
    format_of_file,
    register_format,
    unregister_format,
)
from slimvox.exporters.executorch_file import ExecuTorch
from slimvox.exporters.onnx_file import Onnx
from slimvox.exporters.openvino_file import OpenVino
from slimvox.exporters.torch_program import TorchExport

if TYPE_CHECKING:
    from slimvox.exporters.int8 import Int8Errors
    from slimvox.exporters.run import ExportResult, export, export_encoder
    from slimvox.exporters.signature import Layers

for _format in (Onnx(), TorchExport(), OpenVino(), ExecuTorch()):
    register_format(_format)

__all__ = [
    "ExportFormat",
    "ExportResult",
    "Int8Errors",
    "Layers",
    "Program",
    "export",
    "export_encoder",
    "export_format",
    "export_format_names",
    "export_formats",
    "format_of_file",
    "register_format",
    "unregister_format",
]

_HOMES = {
    "ExportResult": "run",
    "Int8Errors": "int8",
    "Layers": "signature",
    "export": "run",
    "export_encoder": "run",
}


def __getattr__(name: str) -> Any:
    """Import on first use: the command line needs the formats' names before it needs torch."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"slimvox.exporters.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
