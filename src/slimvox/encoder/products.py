"""Linear maps, by the fastest kernel there is for inference on a CPU."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from slimvox.encoder.inference import inference_on_cpu

ROWS = 64
"""Rows are padded to a multiple of this, so that clips of nearly the same length share their kernels."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, *, gelu: bool = False) -> Tensor:
    """`F.linear`, and `F.gelu` of it where asked for; in float32 inference on an x86 CPU through oneDNN, not MKL.

    oneDNN makes its kernels for the processor at hand; MKL keeps its best ones for one maker's. The sums are taken in
    another order: results differ in the last bits. A kernel is made for each shape when it is first seen, which takes
    longer than a short clip does where every layer has widths of its own.
    """
    if _suits_onednn(x, weight):
        after, algorithm = ("gelu", "none") if gelu else ("none", "")
        rows = x.numel() // x.shape[-1]
        padded = F.pad(x.reshape(rows, x.shape[-1]), (0, 0, 0, -rows % ROWS))
        product: Tensor = torch.ops.mkldnn._linear_pointwise(padded, weight, bias, after, [], algorithm)
        return product[:rows].view(*x.shape[:-1], -1)
    product = F.linear(x, weight, bias)
    return F.gelu(product) if gelu else product


def _suits_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        inference_on_cpu(x)
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and x.numel() > 0
        and weight.numel() > 0
        and _onednn_is_there()
    )


@cache
def _onednn_is_there() -> bool:
    vectors = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    return vectors and bool(torch._C._has_mkldnn) and hasattr(torch.ops.mkldnn, "_linear_pointwise")
