"""Export of encoders to files that run without slimvox; see `docs/extending/format.md` for how to add a format."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from slimvox.util.imports import lazy_attributes

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
    "ExportResult": "slimvox.exporters.run",
    "Int8Errors": "slimvox.exporters.int8",
    "Layers": "slimvox.exporters.signature",
    "export": "slimvox.exporters.run",
    "export_encoder": "slimvox.exporters.run",
}

# The command line needs the names of the formats before it needs torch.
__getattr__ = lazy_attributes(__name__, _HOMES)
