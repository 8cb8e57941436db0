"""int8 for OpenVINO: matrix products with constant weights, with activation scales determined on clips of speech."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from slimvox.exporters.quantise import FRONT_END
from slimvox.util.environment import environment_variable


def quantised(model: Any, inputs: Sequence[Mapping[str, NDArray[Any]]]) -> Any:
    """An int8 version of an `openvino.Model`, with scales determined on `inputs`.

    The products of the feature projection and of the layers are quantised; products of two activations (attention), the
    front end, the positional convolution and everything between them stay float32, as in int8 ONNX files. With NNCF's
    defaults, the hidden states of an encoder pruned from the embedded teacher are off by 87 % (by 77 % with
    `TRANSFORMER`, by 10 % without the front end); with these settings, by 2 %. Weights use 7 of the 8 bits: see
    `quantise`.

    SmoothQuant (Xiao et al., ICML 2023) is off. It divides each channel of an activation by its largest value in
    `inputs`, so a channel that is small there may be too large for the scale on other speech: the states of an encoder
    at 20 % of its MACs were off by 2 % on other clips of the same corpus and by 12 % on another corpus, without it by 2
    and 3 % (docs/lab-notebook.md, 2026-11-27).
    """
    with environment_variable("NNCF_CI", "1"):  # NNCF then sends no usage data
        import nncf
    kept = [node.get_friendly_name() for node in model.get_ops() if not _is_quantised(node)]
    with _quiet(nncf), contextlib.redirect_stdout(io.StringIO()):  # progress bars
        return nncf.quantize(
            model,
            nncf.Dataset(inputs),
            subset_size=len(inputs),
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=kept, validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=nncf.OverflowFix.ENABLE,
                smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=-1),
            ),
        )


@contextlib.contextmanager
def _quiet(nncf: Any) -> Iterator[None]:
    """Context in which NNCF logs only errors. `set_log_level` also changes the handlers of the root logger."""
    levels = {handler: handler.level for handler in logging.getLogger().handlers}
    nncf.set_log_level(logging.ERROR)
    try:
        yield
    finally:
        for handler, level in levels.items():
            handler.setLevel(level)


def _is_quantised(node: Any) -> bool:
    """True if a node is a product of an activation with a matrix that is not the front end's."""
    if node.get_type_name() != "MatMul":
        return False
    activation, weight = (node.input_value(place).get_node() for place in (0, 1))
    return (
        weight.get_type_name() == "Constant"
        and len(weight.get_output_shape(0)) == 2
        and activation.get_type_name() != "Constant"
        and not weight.get_friendly_name().startswith(FRONT_END)
    )
