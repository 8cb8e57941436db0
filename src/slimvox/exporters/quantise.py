"""int8 quantisation of matrix products with constant weights; activations are quantised on the fly."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from slimvox.exporters.onnx_file import quiet

FRONT_END = "encoder.feature_extractor."
"""Prefix of the names of the front end's weights."""


def quantise(source: Path, target: Path) -> None:
    """Write an int8 version of an ONNX file.

    Weights are int8 with a scale for each output; activations are uint8 with a scale for each tensor, determined when
    the model runs. Weights use 7 of the 8 bits: processors with AVX2 but no VNNI add products of full bytes in 16 bits,
    which overflow. The following stays in float32:

    - products of two activations (attention);
    - the front end: with one scale for loud and quiet frames, the quiet ones have too few steps, and the norm that
      follows amplifies this to an error of 25 % in the hidden states (embedded teacher);
    - the arithmetic of the positional convolution; its weights are stored as int8;
    - products with a constant vector (a head's weighted sum of layers).

    The clips of a batch share the scales of their activations, so the result of one clip depends slightly on the
    others.

    Args:
        source: float32 model, as the exporter wrote it.
        target: file to write; an existing one is replaced.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(source)
    sizes = {initialiser.name: initialiser.dims for initialiser in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in sizes]
    at_load = [node.name for node in products if node.input[0] in sizes]
    front_end = [node.name for node in products if node.input[1].startswith(FRONT_END)]
    no_matrix = [node.name for node in products if len(sizes[node.input[1]]) != 2]
    # onnxruntime advises on the root logger to do what the exporter has already done.
    with quiet("", level=logging.ERROR):
        quantize_dynamic(
            model,
            target,
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_exclude=at_load + front_end + no_matrix,
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
    quantised = onnx.load(target)
    _store_as_int8(quantised.graph, at_load)
    onnx.save(quantised, target)


def _store_as_int8(graph: Any, names: list[str]) -> None:
    """Store second inputs of products that runtimes compute on loading as int8, to be scaled when they are read."""
    from onnx import TensorProto, helper, numpy_helper

    initialisers = {initialiser.name: initialiser for initialiser in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.name in names:
            name = node.input[1]
            weight = numpy_helper.to_array(initialisers[name])
            scale = np.maximum(np.abs(weight).max(0, keepdims=True), np.float32(1e-30)) / np.float32(127)
            stored = numpy_helper.from_array(np.rint(weight / scale).astype(np.int8), f"{name}_int8")
            graph.initializer.remove(initialisers[name])
            graph.initializer.extend([stored, numpy_helper.from_array(scale, f"{name}_scale")])
            cast = helper.make_node(
                "Cast", [stored.name], [f"{name}_float"], f"{name}_cast", to=TensorProto.FLOAT
            )
            nodes.append(cast)
            nodes.append(
                helper.make_node("Mul", [f"{name}_float", f"{name}_scale"], [name], f"{name}_scaled")
            )
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
