"""A training step on the `meta` device, where everything that would make the host wait for a device is an error.

Tensors on it have shapes and no values: reading one (`float`, `bool`, `tolist`, `nonzero`, ...) raises, and so does an
operator whose tensors lie on it and on the CPU. Copies from the CPU do not raise, so they are counted here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import students
from slimvox.pruning import stage as stage_module

META = torch.device("meta")


MADE_FROM_LISTS = (torch.tensor, torch.as_tensor, Tensor.new_tensor)


class _Operators(TorchDispatchMode):
    """Lists the number of elements of each tensor of the CPU that an operator copies to the device."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self._sizes = sizes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        made = [each for each in tree_leaves(result) if isinstance(each, Tensor)]
        if given and META not in {each.device for each in given} and META in {each.device for each in made}:
            self._sizes.append(max(each.numel() for each in given))
        return result


class _Functions(TorchFunctionMode):
    """Lists the number of elements of each tensor that is made on the device from numbers of the host."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self._sizes = sizes

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in MADE_FROM_LISTS and result.device == META and not isinstance(args[0], Tensor):
            self._sizes.append(result.numel())
        return result


@contextmanager
def copies_listed() -> Iterator[list[int]]:
    """Number of elements of each tensor that is copied from the host to the device."""
    sizes: list[int] = []
    with _Functions(sizes), _Operators(sizes):
        yield sizes


@contextmanager
def reads_counted(patch: pytest.MonkeyPatch) -> Iterator[list[set[str]]]:
    """Replace the one read of a step: every value is 1, and the names of each read are listed."""
    reads: list[set[str]] = []

    def read(scalars: Mapping[str, Tensor]) -> dict[str, float]:
        assert all(each.device == META and each.dim() == 0 for each in scalars.values())
        reads.append(set(scalars))
        return dict.fromkeys(scalars, 1.0)

    with patch.context() as inner:
        inner.setattr(stage_module, "read_scalars", read)
        yield reads


def use_meta(patch: pytest.MonkeyPatch) -> None:
    """Stages of `students.make_stage` get the meta device; what torch has for no such device is left out: the fused
    kernels of AdamW, autocast.
    """
    build, adamw, autocast = students.build_accelerator, torch.optim.AdamW, torch.autocast

    def build_on_meta(**options: Any) -> Accelerator:
        accelerator = build(**options)
        patch.setattr(Accelerator, "device", property(lambda self: META))
        return accelerator

    patch.setattr(students, "build_accelerator", build_on_meta)
    patch.setattr(
        torch.optim, "AdamW", lambda *given, **options: adamw(*given, **{**options, "fused": False})
    )
    patch.setattr(
        torch,
        "autocast",
        lambda kind, **options: nullcontext() if kind == "meta" else autocast(kind, **options),
    )
