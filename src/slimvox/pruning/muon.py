"""Muon: momentum, orthogonalised, for weight matrices."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.775, 2.0315)
"""Coefficients of the quintic polynomial that brings all singular values near 1."""
ITERATIONS = 5
SMALLEST_NORM = 1e-7


class Muon(torch.optim.Optimizer):
    """The Muon optimiser, equal to `torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`, in a selectable precision.

    Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); the scale of the updates is that of
    Liu et al., "Muon is Scalable for LLM Training" (2025), which keeps AdamW's rates usable. torch's own computes in
    bfloat16 always, which is slow beyond use on a CPU without units for it (docs/lab-notebook.md, 2026-11-24).
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        *,
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """An optimiser.

        Args:
            matrices: parameters of two dimensions, none of them empty.
            lr: learning rate, on the scale of AdamW's.
            weight_decay: decoupled.
            momentum: of the gradients, with Nesterov's look ahead.
            dtype: what is orthogonalised in.

        Raises:
            ValueError: if a parameter is no matrix.
        """
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        # Not in the groups: a checkpoint goes on in the precision of the run that reads it.
        self.dtype = dtype
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.dim() != 2:
                    raise ValueError(f"`matrices` must have two dimensions, but one is {tuple(matrix.shape)}")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, for all matrices with a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix)
                buffer, momentum = state["momentum_buffer"], group["momentum"]
                buffer.lerp_(matrix.grad, 1 - momentum)
                update = orthogonalised(matrix.grad.lerp(buffer, momentum), self.dtype)
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-0.2 * max(matrix.shape) ** 0.5 * group["lr"])
        return loss


def orthogonalised(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """A matrix with the same singular vectors and all singular values near 1 (between .7 and 1.2), of type `dtype`.

    Newton-Schulz iteration with a quintic polynomial, on the shorter side.
    """
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).to(dtype)
    x = x / x.norm().clamp(min=SMALLEST_NORM)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
