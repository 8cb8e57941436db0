"""From an encoder to a program that `torch.export` has traced."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from slimvox.encoder import SpeechEncoder
from slimvox.export.exportable import ExportableEncoder
from slimvox.export.signature import Signature


def trace(encoder: SpeechEncoder, signature: Signature, *, taps_in_file: bool) -> Any:
    """An `ExportedProgram` of any batch size and any length from one frame on."""
    symbolic: Any = importlib.import_module("torch.fx.experimental._config")
    model = ExportableEncoder(encoder, last_only=signature.last_only, taps_in_file=taps_in_file).eval()
    sample = torch.zeros(2, 40 * encoder.anatomy.hop)
    arguments = (sample, sample > -1) if signature.mask else (sample,)
    dynamic = torch.export.Dim.DYNAMIC
    # Else one clip and one frame would be cases of their own, and refused.
    with symbolic.patch(backed_size_oblivious=True), torch.no_grad():
        program = torch.export.export(
            model, arguments, dynamic_shapes=tuple({0: dynamic, 1: dynamic} for _ in arguments)
        )
    # What tracing took for granted of the sample, such as more than one clip; none of it is needed.
    program._guards_code = []
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            node.meta.pop("stack_trace", None)  # paths of the machine that exported
    return program
