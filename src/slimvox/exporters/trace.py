"""Tracing of an encoder by `torch.export`."""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from slimvox.exporters.exportable import ExportableModel
from slimvox.exporters.position import PositionForm
from slimvox.exporters.reference import Reference

OPTIONS = "torch.fx.experimental._config"
"""Module of torch's options for symbolic sizes. torch's own ONNX exporter sets the same option of it."""


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
    with _sizes_of_one(), torch.no_grad():
        program: Any = torch.export.export(model, arguments, dynamic_shapes=dynamic_shapes)
    # Assumptions that tracing made about the sample, such as more than one clip; none is needed.
    if hasattr(program, "_guards_code"):
        program._guards_code = []
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            node.meta.pop("stack_trace", None)  # paths of the machine that exported
    return program


def _sizes_of_one() -> AbstractContextManager[Any]:
    """Context in which sizes of one clip or one frame are not special cases, which a traced program would refuse.

    ONNX files accept these sizes in any case. If this version of torch does not have the option, a `torch.export`
    program does not accept them, and is refused when it is compared with the encoder.
    """
    try:
        options: Any = importlib.import_module(OPTIONS)
    except ImportError:
        return nullcontext()
    if not hasattr(options, "backed_size_oblivious"):
        return nullcontext()
    patch: AbstractContextManager[Any] = options.patch(backed_size_oblivious=True)
    return patch
