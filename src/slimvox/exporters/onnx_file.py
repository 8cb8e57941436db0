"""Writing and running ONNX files."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimvox.util.errors import SlimvoxError

DEFAULT_OPSET = 20
"""The first with GELU as one operator."""
OLDEST_OPSET = 18
"""The first that torch writes; layer norm as one operator is from 17."""
MOST_BYTES_IN_ONE_FILE = 2**31 - 2**24
"""Maximum bytes of weights in one file: protobuf's limit, less some room for the graph."""


def require_onnx() -> None:
    """Raise SlimvoxError if a package is missing that ONNX export needs."""
    missing = [
        name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise SlimvoxError(
            f'export to ONNX needs {" and ".join(missing)}, which is not installed: pip install "slimvox[onnx]"'
        )


def check_opset(opset: int) -> None:
    """Raise SlimvoxError for a version of ONNX's operators that cannot hold the model, or is not known here."""
    import onnx

    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise SlimvoxError(
            f"`opset` must be from {OLDEST_OPSET} (older ones cannot hold the model) to {newest} (the newest that the"
            f" installed onnx knows), but is {opset} instead"
        )


def write_onnx(
    program: Any,
    path: Path,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    opset: int,
    metadata: Mapping[str, str],
) -> None:
    """Write a traced program as one file, or, where protobuf cannot hold it, with a second one `NAME.data`."""
    import torch

    with _quiet():
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
    for names, values in (
        (("batch", "samples"), model.graph.inputs),
        (("batch", "frames"), model.graph.outputs),
    ):
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


class OnnxSession:
    """An ONNX file in onnxruntime, on the CPU."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # a class of its own for each status
            first = str(error).strip().splitlines()[0]
            raise SlimvoxError(
                f"onnxruntime cannot run the exported model, another --opset may help: {first}"
            ) from error
        self._inputs = [given.name for given in self._session.get_inputs()]

    def __call__(self, *inputs: NDArray[Any]) -> list[NDArray[np.float32]]:
        """All outputs, in their order."""
        given = dict(zip(self._inputs, inputs, strict=True))
        outputs: list[NDArray[np.float32]] = self._session.run(None, given)
        return outputs


@contextmanager
def _quiet() -> Iterator[None]:
    """Context without the exporter's warnings that do not apply here (torchvision) or are repeated in an error."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
