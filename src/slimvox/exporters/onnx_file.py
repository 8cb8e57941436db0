"""The format `onnx`: ONNX files, float32 or int8, run by onnxruntime."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimvox.exporters.base import TRACING_TORCH, ExportFormat, Program
from slimvox.util.errors import SlimvoxError, reason_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from slimvox.exporters.reference import Reference

ONNXSCRIPT = "onnxscript>=0.7"
"""With older ones, torch's exporter stops (0.5, 0.6.0) or prints into the output (0.6.2)."""
DEFAULT_OPSET = 20
"""Default version: the first with GELU as one operator."""
OLDEST_OPSET = 18
"""The first version that torch writes; layer norm is one operator from 17 upwards."""
MOST_BYTES_IN_ONE_FILE = 2**31 - 2**24
"""Maximum bytes of weights in one file: protobuf's limit, less some room for the graph."""


class Onnx(ExportFormat):
    """ONNX with `torch.onnx`, and int8 by onnxruntime's dynamic quantisation."""

    name = "onnx"
    title = "ONNX"
    ending = ".onnx"
    extra = "onnx"
    packages_to_write = (TRACING_TORCH, "onnx", ONNXSCRIPT, "onnxruntime")
    packages_to_run = ("onnxruntime",)
    holds_int8 = True

    def opsets(self) -> range:
        """Versions from the first that torch writes to the newest of the installed onnx."""
        import onnx

        return range(OLDEST_OPSET, onnx.defs.onnx_opset_version() + 1)

    def write(
        self, reference: Reference, path: Path, *, metadata: Mapping[str, str], opset: int | None
    ) -> None:
        """Trace a model and write it."""
        from slimvox.exporters.trace import trace_reference

        write_onnx(
            trace_reference(reference, "spectrum of taps"),
            path,
            inputs=reference.signature.inputs,
            outputs=reference.outputs,
            opset=DEFAULT_OPSET if opset is None else opset,
            metadata=metadata,
        )

    def open(self, path: Path, *, threads: int | None = None) -> Program:
        """Start a session of onnxruntime."""
        return OnnxProgram(path, threads)

    def to_int8(self, path: Path, clips: Sequence[NDArray[np.float32]] = ()) -> None:
        """Quantise the matrix products of a file."""
        from slimvox.exporters.quantise import quantise

        if self.companion(path).exists():
            raise SlimvoxError("a model over 2 GB cannot be quantised; prune it first, or leave int8 out")
        quantise(path, path)


def write_onnx(
    program: Any,
    path: Path,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    opset: int,
    metadata: Mapping[str, str],
    axes: Sequence[Sequence[str]] = (("batch", "samples"), ("batch", "frames")),
) -> None:
    """Write a traced program as one file, or, where protobuf cannot hold it, with a second one `NAME.data`.

    `axes` are the names of the first sizes of the inputs and of the outputs, for those that may vary.
    """
    import torch

    from slimvox.exporters.trace import without_stack_traces

    # Warnings that do not apply here (torchvision), or are repeated in an error.
    with quiet("torch.onnx", "onnxscript", level=logging.CRITICAL), without_stack_traces():
        exported: Any = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=opset,
            verbose=False,
            input_names=list(inputs),
            output_names=list(outputs),
        )
    model = exported.model
    written = model.opset_imports.get("")
    if written != opset:
        raise SlimvoxError(
            f"opset {opset} cannot hold the model: torch wrote {written}; leave `opset` at {DEFAULT_OPSET}"
        )
    for node in model.graph.all_nodes():
        node.doc_string = None
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    for names, values in zip(axes, (model.graph.inputs, model.graph.outputs), strict=True):
        for value in values:
            value.metadata_props.clear()
            for axis, name in enumerate(names):
                if not isinstance(value.shape[axis], int):
                    value.shape[axis] = name
    model.graph.doc_string = None
    model.producer_name = "slimvox"
    model.producer_version = metadata["slimvox_version"]
    model.metadata_props.clear()
    model.metadata_props.update(metadata)
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values())
    exported.save(str(path), external_data=size > MOST_BYTES_IN_ONE_FILE)


class OnnxProgram(Program):
    """An ONNX file in onnxruntime, on the CPU."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
            # Otherwise idle threads spin while they wait for work, and slow down other processes.
            options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # a class of its own for each status
            raise SlimvoxError(
                f"onnxruntime cannot read {path}: {reason_of(error)}; if it was exported with `--opset`, another one"
                " may help"
            ) from error
        self.inputs = [given.name for given in self._session.get_inputs()]
        self.outputs = [output.name for output in self._session.get_outputs()]
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map

    def __call__(self, *inputs: NDArray[Any]) -> list[NDArray[np.float32]]:
        """All outputs, in their order."""
        given = dict(zip(self.inputs, inputs, strict=True))
        outputs: list[NDArray[np.float32]] = self._session.run(self.outputs, given)
        return outputs


@contextmanager
def quiet(*names: str, level: int) -> Iterator[None]:
    """Context without warnings, in which loggers (of these names; empty for the root) log only messages of a level."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
