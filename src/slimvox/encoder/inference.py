"""When the encoder may take the ways that only inference on a CPU can use."""

from __future__ import annotations

import torch
from torch import Tensor


def inference_on_cpu(x: Tensor) -> bool:
    """Whether x is computed on a CPU, without gradients and without being traced, exported or compiled."""
    if torch.is_grad_enabled() or x.device.type != "cpu":
        return False
    return not (torch.compiler.is_compiling() or torch._C._get_tracing_state())
