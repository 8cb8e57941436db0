"""Tracing of an encoder by `torch.export`."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from slimvox.exporters.exportable import ExportableModel
from slimvox.exporters.position import PositionForm
from slimvox.exporters.reference import Reference

SIZES_OPTIONS = "torch.fx.experimental._config"
"""Module of torch's options for symbolic sizes. torch's own ONNX exporter sets the same option of it."""
TRACING_OPTIONS = "torch.fx.config"
"""Module of torch's options for tracing."""


def trace_reference(reference: Reference, positions: PositionForm) -> Any:
    """The `ExportedProgram` of a model with its signature."""
    signature = reference.signature
    model = ExportableModel(reference.encoder, reference.head, layers=signature.layers, positions=positions)
    return trace(model, mask=signature.mask, shortest_samples=reference.shortest_samples)


def trace(model: ExportableModel, *, mask: bool, shortest_samples: int) -> Any:
    """An `ExportedProgram` for any batch size and any length from the shortest upwards.

    Args:
        model: model to trace.
        mask: whether a mask is an input.
        shortest_samples: minimum length of a clip, in samples.
    """
    sample = torch.zeros(2, shortest_samples + 39 * model.encoder.anatomy.hop)
    arguments = (sample, sample > -1) if mask else (sample,)
    dynamic = torch.export.Dim.DYNAMIC
    return traced(model.eval(), arguments, tuple({0: dynamic, 1: dynamic} for _ in arguments))


def traced(model: nn.Module, arguments: tuple[Tensor, ...], dynamic_shapes: Any) -> Any:
    """`torch.export.export`, without the guards that come from the sample arguments."""
    with _sizes_of_one(), without_stack_traces(), torch.no_grad():
        program: Any = torch.export.export(model, arguments, dynamic_shapes=dynamic_shapes)
    # Assumptions that tracing made about the sample, such as more than one clip; none is needed.
    if hasattr(program, "_guards_code"):
        program._guards_code = []
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            # Paths of the machine that exported, where torch lacks the option.
            node.meta.pop("stack_trace", None)
    return program


def _sizes_of_one() -> AbstractContextManager[Any]:
    """Context in which sizes of one clip or one frame are not special cases, which a traced program would refuse.

    ONNX files accept these sizes in any case. If this version of torch does not have the option, a `torch.export`
    program does not accept them, and is refused when it is compared with the encoder.
    """
    return _option(SIZES_OPTIONS, "backed_size_oblivious")


def without_stack_traces() -> AbstractContextManager[Any]:
    """Context in which tracing does not record where in the code each operation came from.

    The embedded teacher is then exported to ONNX in 15 % less time.
    """
    return _option(TRACING_OPTIONS, "do_not_emit_stack_traces")


@contextmanager
def _option(module: str, name: str) -> Iterator[None]:
    """Context in which an option of torch is true; without effect where this version of torch does not have it."""
    try:
        options: Any = importlib.import_module(module)
    except ImportError:
        options = None
    if not hasattr(options, name):
        yield
        return
    before = getattr(options, name)
    setattr(options, name, True)
    try:
        yield
    finally:
        setattr(options, name, before)
