"""From an encoder to a program that `torch.export` has traced."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from slimvox.export.exportable import ExportableModel


def trace(model: ExportableModel, *, mask: bool, shortest_samples: int) -> Any:
    """An `ExportedProgram` of any batch size and any length from the shortest on.

    Args:
        model: what to trace.
        mask: whether it is given a mask.
        shortest_samples: of a clip that it can be run on.
    """
    symbolic: Any = importlib.import_module("torch.fx.experimental._config")
    sample = torch.zeros(2, shortest_samples + 39 * model.encoder.anatomy.hop)
    arguments = (sample, sample > -1) if mask else (sample,)
    dynamic = torch.export.Dim.DYNAMIC
    # Else one clip and one frame would be cases of their own, and refused.
    with symbolic.patch(backed_size_oblivious=True), torch.no_grad():
        program = torch.export.export(
            model.eval(), arguments, dynamic_shapes=tuple({0: dynamic, 1: dynamic} for _ in arguments)
        )
    # What tracing took for granted of the sample, such as more than one clip; none of it is needed.
    program._guards_code = []
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            node.meta.pop("stack_trace", None)  # paths of the machine that exported
    return program
