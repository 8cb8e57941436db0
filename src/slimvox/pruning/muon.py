"""The optimiser Muon: orthogonalised momentum, for weight matrices."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

COEFFICIENTS = (
    (7.72619, -20.46939, 13.716515),
    (3.38138, -2.104961, 0.342684),
    (2.690137, -1.843867, 0.376446),
)
"""Coefficients of quintic polynomials a x + b x^3 + c x^5 that, applied one after the other, bring singular values from
[0.01, 1] near 1.

They are those of Polar Express (Amsel, Persson, Musco and Gower, 2025): each is optimal on the interval to which the
previous ones map. These intervals are widened upwards by `MARGINS`, because beyond them the polynomials grow fast and
rounding must not lead there.
"""
MARGINS = (1.05, 1.1, 1.05)
SMALLEST_NORM = 1e-7
WIDE = 1.5
"""Ratio of the sides from which powers of the Gram matrix take fewer operations than powers of the matrix."""
STACK_ELEMENTS = 2**23
"""Maximum number of elements of the matrices that are orthogonalised together; the working memory is some four times
as much."""


class Muon(torch.optim.Optimizer):
    """The Muon optimiser, with updates scaled as in `torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`.

    Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); the scale of the updates is that of
    Liu et al., "Muon is Scalable for LLM Training" (2025), which keeps AdamW's rates usable. torch's own computes in
    bfloat16 always, which is slow beyond use on a CPU without units for it (docs/lab-notebook.md, 2026-11-24).

    The processes of a run share the work: each orthogonalises some of the matrices and broadcasts them. All of them
    hold the whole state, so that a run can be resumed with another number of processes.
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
            momentum: Nesterov momentum of the gradients.
            dtype: data type of the orthogonalisation.

        Raises:
            ValueError: if a parameter is not a matrix.
        """
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        # Not in the groups, so that a resumed run uses its own precision.
        self.dtype = dtype
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.dim() != 2:
                    raise ValueError(f"`matrices` must have two dimensions, but one is {tuple(matrix.shape)}")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, for all matrices with a gradient, which are the same ones in all processes."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            matrices = [matrix for matrix in group["params"] if matrix.grad is not None]
            if not matrices:
                continue
            for matrix in matrices:
                if not self.state[matrix]:
                    self.state[matrix]["momentum_buffer"] = torch.zeros_like(matrix)
            # Few operations on all matrices at once: on a GPU, launching one for each takes longer than computing it.
            torch._foreach_lerp_(self._momenta(matrices), _gradients(matrices), 1 - group["momentum"])
            torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
            for alike, updates in self._updates(matrices, group["momentum"]):
                rate = 0.2 * max(alike[0].shape) ** 0.5 * group["lr"]
                torch._foreach_sub_(list(alike), list((rate * updates.to(alike[0].dtype)).unbind()))
        return loss

    def _momenta(self, matrices: Sequence[nn.Parameter]) -> list[Tensor]:
        return [self.state[matrix]["momentum_buffer"] for matrix in matrices]

    def _updates(
        self, matrices: Sequence[nn.Parameter], momentum: float
    ) -> Iterator[tuple[Sequence[nn.Parameter], Tensor]]:
        """Matrices of equal shape with their orthogonalised momenta (matrices, rows, columns), the same in all
        processes.
        """
        group = dist.is_available() and dist.is_initialized()
        processes, rank = (dist.get_world_size(), dist.get_rank()) if group else (1, 0)
        for owner, share in enumerate(shares(matrices, processes)):
            stacks = stacked(share)
            own = (self._orthogonalised(alike, momentum) for alike in stacks if owner == rank)
            if processes == 1:
                yield from zip(stacks, own, strict=True)
            elif share:
                sizes = [len(alike) * alike[0].numel() for alike in stacks]
                flat = share[0].new_empty(sum(sizes), dtype=self.dtype)
                parts = flat.split_with_sizes(sizes)
                for part, updates in zip(parts, own, strict=False):
                    part.copy_(updates.flatten())
                dist.broadcast(flat, src=owner)
                for alike, part in zip(stacks, parts, strict=True):
                    yield alike, part.view(len(alike), *alike[0].shape)

    def _orthogonalised(self, alike: Sequence[nn.Parameter], momentum: float) -> Tensor:
        """The orthogonalised Nesterov momenta of matrices of equal shape, (matrices, rows, columns)."""
        ahead = torch.stack(_gradients(alike)).lerp_(torch.stack(self._momenta(alike)), momentum)
        return orthogonalised(ahead, self.dtype)


def _gradients(matrices: Sequence[nn.Parameter]) -> list[Tensor]:
    return [matrix.grad for matrix in matrices if matrix.grad is not None]


def stacked(matrices: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Neighbours of equal shape, as many together as `STACK_ELEMENTS` allows."""
    stacks = []
    for shape, neighbours in itertools.groupby(matrices, key=lambda matrix: matrix.shape):
        alike = list(neighbours)
        size = max(1, STACK_ELEMENTS // shape.numel())
        stacks += [alike[start : start + size] for start in range(0, len(alike), size)]
    return stacks


def shares(matrices: Sequence[nn.Parameter], processes: int) -> list[list[nn.Parameter]]:
    """Matrices shared out among processes so that each has about as much to compute, matrices of equal shape together.

    It depends on the shapes alone, so that all processes make the same division.
    """
    result: list[list[nn.Parameter]] = [[] for _ in range(processes)]
    work = [0] * processes
    for matrix in sorted(matrices, key=_operations, reverse=True):
        least = work.index(min(work))
        result[least].append(matrix)
        work[least] += _operations(matrix)
    return [sorted(share, key=lambda matrix: tuple(matrix.shape)) for share in result]


def _operations(matrix: Tensor) -> int:
    """Multiplications for one matrix, up to a factor."""
    short, long = sorted(matrix.shape)
    return short * short * (2 * long + 9 * short if long >= WIDE * short else 6 * long + 3 * short)


def orthogonalised(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Matrices with the same singular vectors and all singular values near 1 (within 0.33), of type `dtype`.

    Newton-Schulz iteration with quintic polynomials, on the shorter side. Singular values below a hundredth of the
    largest do not reach 1.

    Args:
        matrices: (matrices, rows, columns).
        dtype: data type of the computation.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).to(dtype)
    x = x / _norm(x).clamp(min=SMALLEST_NORM)
    gram = x @ x.mT
    square = gram @ gram
    # The norm is far above the largest singular value, and would cost two more iterations. The eighth root of the sum
    # of their eighth powers is close above it, and known from the first polynomial's own powers.
    bound = _norm(square).sqrt().clamp(min=SMALLEST_NORM)
    x, gram, square = x / bound.sqrt(), gram / bound, square / bound.square()
    # For wide matrices, only Gram matrices are iterated, and the product of all polynomials is applied at the end; in
    # half precision that would be too inexact.
    wide, product = dtype == torch.float32 and x.shape[2] >= WIDE * x.shape[1], None
    polynomial = COEFFICIENTS[0][1] * gram + COEFFICIENTS[0][2] * square
    for number, (a, b, c) in enumerate(COEFFICIENTS):
        if number:
            gram = polynomial @ gram @ polynomial if wide else x @ x.mT
            polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        if wide:
            polynomial.diagonal(dim1=1, dim2=2).add_(a)
            product = polynomial if product is None else polynomial @ product
        else:
            x = torch.baddbmm(x, polynomial, x, beta=a)
    if product is not None:
        x = product @ x
    return x.mT if tall else x


def _norm(matrices: Tensor) -> Tensor:
    """Frobenius norms, (matrices, 1, 1)."""
    norms: Tensor = torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True)
    return norms
