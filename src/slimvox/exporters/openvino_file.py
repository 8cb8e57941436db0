"""The format `openvino`: OpenVINO's intermediate representation, float32 or int8, run by OpenVINO."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimvox.exporters.base import TRACING_TORCH, ExportFormat, Program
from slimvox.exporters.onnx_file import ONNXSCRIPT, Onnx
from slimvox.util.errors import SlimvoxError, reason_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from slimvox.exporters.reference import Reference

SECTION = "slimvox"
"""Section of a file's runtime information that holds the metadata."""


class OpenVino(ExportFormat):
    """An `.xml` file with its weights in a `.bin` file, converted from ONNX; int8 by NNCF's calibrated quantisation."""

    name = "openvino"
    title = "OpenVINO"
    ending = ".xml"
    extra = "openvino"
    packages_to_write = (TRACING_TORCH, "onnx", ONNXSCRIPT, "openvino", "nncf")
    packages_to_run = ("openvino",)
    holds_int8 = True
    calibrates_int8 = True
    runs_bf16 = True

    def companion(self, path: Path) -> Path:
        """The file with the weights: OpenVINO finds it by its name."""
        return path.with_suffix(".bin")

    def write(
        self, reference: Reference, path: Path, *, metadata: Mapping[str, str], opset: int | None
    ) -> None:
        """Convert the model's ONNX file. OpenVINO does not read `torch.export` programs with dynamic sizes."""
        import openvino

        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            source = Path(folder) / "model.onnx"
            Onnx().write(reference, source, metadata=metadata, opset=None)
            model = openvino.Core().read_model(source)
            # By name they may not be told apart: a layer without blocks returns the very tensor of the one below.
            for name, value in reference.described(metadata).items():
                model.set_rt_info(value, [SECTION, name])
            openvino.save_model(model, path, compress_to_fp16=False)

    def open(self, path: Path, *, threads: int | None = None) -> Program:
        """Compile a file for the CPU, in float32."""
        return OpenVinoProgram(path, threads, precision="f32")

    def open_bf16(self, path: Path, *, threads: int | None = None) -> Program:
        """Compile a file for the CPU, in bfloat16 where OpenVINO supports it."""
        self.check_bf16()
        return OpenVinoProgram(path, threads, precision="bf16")

    def check_bf16(self) -> None:
        """Raise SlimvoxError if OpenVINO does not compute in bfloat16 on this processor."""
        import openvino

        if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise SlimvoxError(
                "OpenVINO does not compute in bfloat16 on this processor, which lacks the instructions (AVX512-BF16 or"
                " AMX): leave out openvino-bf16"
            )

    def to_int8(self, path: Path, clips: Sequence[NDArray[Any]] = ()) -> None:
        """Quantise a file with NNCF; `clips` determine the scales of its activations."""
        import numpy as np
        import openvino

        from slimvox.exporters.quantise_openvino import quantised
        from slimvox.exporters.signature import ATTENTION_MASK, WAVEFORMS

        core = openvino.Core()
        core.set_property({"ENABLE_MMAP": False})  # the file may be replaced while the model is loaded
        model = core.read_model(path)
        masked = any(ATTENTION_MASK in given.get_names() for given in model.inputs)
        inputs = [
            {WAVEFORMS: clip[None]}
            | ({ATTENTION_MASK: np.ones((1, len(clip)), dtype=bool)} if masked else {})
            for clip in clips
        ]
        openvino.save_model(quantised(model, inputs), path, compress_to_fp16=False)


class OpenVinoProgram(Program):
    """An OpenVINO file, compiled for the CPU."""

    def __init__(self, path: Path, threads: int | None = None, *, precision: str) -> None:
        import openvino

        # On processors with AMX, OpenVINO's default is bfloat16.
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            core = openvino.Core()
            model = core.read_model(path)
            self._compiled = core.compile_model(model, "CPU", settings)
        except Exception as error:  # RuntimeError, or a class of its own
            # The reason comes after the places in OpenVINO's code where it was noticed.
            places = ("Exception from", "Check '")
            lines = [line for line in str(error).splitlines() if line and not line.startswith(places)]
            reason = lines[0] if lines else reason_of(error)
            raise SlimvoxError(f"OpenVINO cannot read {path}: {reason}") from error
        about = model.get_rt_info([SECTION]).value if model.has_rt_info([SECTION]) else {}
        self.metadata: dict[str, str] = {name: str(value) for name, value in about.items()}
        self.inputs = json.loads(self.metadata.get("inputs", "[]"))
        self.outputs = json.loads(self.metadata.get("outputs", "[]"))

    def __call__(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """All outputs, in their order."""
        found = self._compiled(list(inputs))
        return [found[index] for index in range(len(self.outputs))]
