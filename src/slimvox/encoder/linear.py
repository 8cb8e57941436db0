"""Linear maps of any sizes, including 0, computed by the fastest kernel available for inference on a CPU."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from slimvox.encoder.backend import inference_obstacle, module_obstacle, takes, tensor_obstacle

ROWS = 64
"""Multiple to which rows are padded in float32, so that clips of nearly the same length share their kernels."""
WAY = "products by oneDNN"


def apply_linear(layer: nn.Module, x: Tensor, *, gelu: bool = False) -> Tensor:
    """`layer(x)`, in which a plain `nn.Linear` is not called but multiplied by the fastest kernel.

    Args:
        layer: a linear map, or the module that has taken its place (an adapter, a quantised map).
        x: (..., inputs).
        gelu: apply `F.gelu` to the result.

    Returns:
        (..., outputs).
    """
    obstacle = inference_obstacle(x) or module_obstacle(layer, nn.Linear)
    if isinstance(layer, nn.Linear):
        obstacle = obstacle or _onednn_obstacle(x, layer.weight, layer.bias)
        if takes(WAY, obstacle):
            return onednn_product(x, layer.weight, layer.bias, gelu=gelu)
    y: Tensor = layer(x)
    return F.gelu(y) if gelu else y


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, *, gelu: bool = False) -> Tensor:
    """`F.linear`, optionally followed by `F.gelu`; in inference on an x86 CPU by the fastest kernel.

    In bfloat16, where `F.linear` is a product of oneDNN too, oneDNN adds the bias and applies the GELU as part of the
    product, which takes 10 to 30 % less time. In float32 it is the faster of oneDNN and MKL. oneDNN generates its
    kernels for the present processor; MKL uses its best ones only on processors of Intel, where it takes 15 to 60 %
    less time (most for short clips, whose rows oneDNN needs padded). The order of the sums differs, so results differ
    in the last bits. oneDNN generates a kernel for each shape when it first occurs, which takes longer than a short
    clip if every layer has different widths.
    """
    if takes(WAY, onednn_obstacle(x, weight, bias)):
        return onednn_product(x, weight, bias, gelu=gelu)
    product = F.linear(x, weight, bias)
    return F.gelu(product) if gelu else product


def onednn_obstacle(x: Tensor, weight: Tensor, bias: Tensor | None) -> str | None:
    """The reason why `linear` does not multiply x by oneDNN, or None."""
    return inference_obstacle(x) or tensor_obstacle(weight, bias) or _onednn_obstacle(x, weight, bias)


def onednn_product(x: Tensor, weight: Tensor, bias: Tensor | None, *, gelu: bool) -> Tensor:
    """`linear` by oneDNN, where `onednn_obstacle` has nothing against it."""
    after, algorithm = ("gelu", "none") if gelu else ("none", "")
    rows = x.numel() // x.shape[-1]
    matrix = x.reshape(rows, x.shape[-1])
    if x.dtype == torch.float32:
        matrix = _with_rows(matrix, rows + -rows % ROWS)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(matrix, weight, bias, after, [], algorithm)
    return product[:rows].view(*x.shape[:-1], -1)


def _with_rows(x: Tensor, rows: int) -> Tensor:
    """A contiguous matrix of a number of rows that begins with x; the values of further rows do not matter."""
    present, columns = x.shape
    if x.is_contiguous():
        there = x.untyped_storage().nbytes() // x.element_size() - x.storage_offset()
        if present == rows or there >= rows * columns:
            # Such as the product before this one, whose own surplus rows come next in memory.
            return x.as_strided((rows, columns), (columns, 1))
    padded = x.new_empty(rows, columns)
    padded[:present] = x
    padded[present:] = 0
    return padded


def _onednn_obstacle(x: Tensor, weight: Tensor, bias: Tensor | None) -> str | None:
    for tensor in (x, weight, bias):
        if tensor is None:
            continue
        if tensor.dtype != x.dtype or tensor.dtype not in (torch.float32, torch.bfloat16):
            return f"a tensor is {tensor.dtype}"
        if not tensor.is_cpu:
            return f"a tensor is on {tensor.device.type}"
        if not tensor.numel():
            return "a tensor is empty"
    if not weight.is_contiguous() or (bias is not None and not bias.is_contiguous()):
        return "weights are not contiguous"
    if x.shape[-1] != weight.shape[-1]:
        return "the shapes do not fit"
    if torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") != x.dtype:
        return "autocast casts the tensors"
    if not (_onednn_is_there() and torch.backends.mkldnn.enabled):
        return "there is no oneDNN, or it is turned off"
    if x.dtype == torch.bfloat16:
        return None if _onednn_has_bf16() else "the processor has no instructions for bfloat16"
    if _mkl_is_faster():
        return "MKL is faster on this processor"
    return None


@cache
def _onednn_is_there() -> bool:
    vectors = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    built = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    return vectors and built and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@cache
def _onednn_has_bf16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@cache
def _mkl_is_faster() -> bool:
    """True on processors of Intel, if torch has MKL."""
    if not torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        return False
    information = Path("/proc/cpuinfo")
    about = information.read_text(errors="replace") if information.is_file() else platform.processor()
    return "GenuineIntel" in about


class EmptyLinear(NonDynamicallyQuantizableLinear):
    """`nn.Linear` of which at least one size is 0.

    A map from 0 inputs gives its bias, and a map to 0 outputs gives nothing; both result from pruning everything. A
    weight or bias of size 0 is a non-persistent buffer instead of a parameter: it is not stored, and nothing (such as
    `DistributedDataParallel`) waits for its gradient. The base class tells quantisers to leave it alone.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias=bias)
        for name, parameter in [*self.named_parameters()]:
            if not parameter.numel():
                delattr(self, name)
                self.register_buffer(name, parameter.detach(), persistent=False)

    def reset_parameters(self) -> None:
        """Initialise as `nn.Linear` does, without its warning that an empty tensor cannot be."""
        if self.bias is not None and self.bias.numel():
            nn.init.zeros_(self.bias)


def linear_map(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """An `nn.Linear` for any sizes, including 0.

    If no size is 0 it is exactly an `nn.Linear` and not a subclass, because quantisers select by type.
    """
    kind = nn.Linear if inputs and outputs else EmptyLinear
    return kind(inputs, outputs, bias=bias)
