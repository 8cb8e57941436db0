"""The format `torch-export`: `torch.export` programs (.pt2)."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimvox.exporters.base import TRACING_TORCH, ExportFormat, Program
from slimvox.exporters.onnx_file import quiet
from slimvox.util.errors import SlimvoxError, reason_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from slimvox.exporters.reference import Reference

METADATA_FILE = "slimvox.json"


class TorchExport(ExportFormat):
    """A program that needs torch and not slimvox.

    `torch.export.load(path).module()` runs it. It is also what AOTInductor compiles
    (`torch._inductor.aoti_compile_and_package(torch.export.load(path))`). For ExecuTorch, see `ExecuTorch`.
    """

    name = "torch-export"
    title = "torch.export"
    ending = ".pt2"
    packages_to_write = (TRACING_TORCH,)

    def write(
        self, reference: Reference, path: Path, *, metadata: Mapping[str, str], opset: int | None
    ) -> None:
        """Trace and save a model, with its metadata and the names of its inputs and outputs in `slimvox.json`."""
        import torch

        from slimvox.exporters.trace import trace_reference

        program = trace_reference(reference, "spectrum")
        about = json.dumps(reference.described(metadata))
        torch.export.save(program, str(path), extra_files={METADATA_FILE: about})

    def open(self, path: Path, *, threads: int | None = None) -> Program:
        """Load a program; the number of threads is that of the process."""
        return TorchProgram(path, threads)


class TorchProgram(Program):
    """A .pt2 file, loaded again."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        extra_files: dict[str, Any] = {METADATA_FILE: ""}
        try:
            with quiet("torch.export", level=logging.CRITICAL):  # it logs how it fails
                self._module = torch.export.load(str(path), extra_files=extra_files).module()
        except Exception as error:  # of many classes, by what is damaged
            raise SlimvoxError(f"torch {torch.__version__} cannot read {path}: {reason_of(error)}") from error
        self.metadata: dict[str, str] = json.loads(extra_files[METADATA_FILE] or "{}")
        # Files of slimvox 0.1 do not name them.
        self.inputs = json.loads(self.metadata.get("inputs", "[]"))
        self.outputs = json.loads(self.metadata.get("outputs", "[]"))

    def __call__(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """All outputs, in their order."""
        import torch

        with torch.no_grad():
            outputs = self._module(*(torch.from_numpy(given) for given in inputs))
        return [output.numpy() for output in outputs]
