"""Linear maps, by the fastest kernel there is for inference on a CPU."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from slimvox.encoder.inference import inference_on_cpu


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, *, gelu: bool = False) -> Tensor:
    """`F.linear`, and `F.gelu` of it where asked for; in float32 inference on an x86 CPU through oneDNN, not MKL.

    oneDNN makes its kernels for the processor at hand; MKL keeps its best ones for one maker's. The sums are taken in
    another order: results differ in the last bits.
    """
    if _suits_onednn(x, weight):
        after, algorithm = ("gelu", "none") if gelu else ("none", "")
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, after, [], algorithm)
        return product
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
