"""Selection of the implementation of a forward pass: the reference, or fast implementations where they give the same
result.

The reference calls every module and uses nothing but torch's usual operators. Fast implementations are the front end in
tiles, products by oneDNN, the positional convolution by Fourier transform, and others. They read the weights of a
module instead of calling it, or use a kernel that exists only for inference on a CPU. They are used only if nothing but
the computing time changes. Every such decision is made here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules import module as module_internals
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext

Backend = Literal["auto", "reference"]
"""`auto`: fast implementations where they give the same result; `reference`: none."""
Choices = dict[str, set[str]]
"""Fast implementations, each with the reasons why it was not used; the empty string stands for calls that used it."""

_BACKEND: ContextVar[Backend] = ContextVar("slimvox_backend", default="auto")
_CHOICES: ContextVar[Choices | None] = ContextVar("slimvox_backend_choices", default=None)


@contextmanager
def use_backend(backend: Backend) -> Iterator[None]:
    """Choose the implementation of forward passes within a context, for the current thread.

    Args:
        backend: `"reference"` turns every fast implementation off; `"auto"` is the default.

    Raises:
        ValueError: if `backend` is neither.
    """
    if backend not in get_args(Backend):
        raise ValueError(
            f"`backend` must be one of {', '.join(get_args(Backend))}, but is {backend!r} instead"
        )
    token = _BACKEND.set(backend)
    try:
        yield
    finally:
        _BACKEND.reset(token)


@contextmanager
def record_choices() -> Iterator[Choices]:
    """Record which fast implementations are used within a context, for the current thread.

    Yields:
        A dictionary that is filled while the context is open: for each fast implementation that was considered, the set
        of reasons why it was not used, including the empty string if it was.

    Examples:
        >>> with record_choices() as choices, torch.inference_mode():
        ...     encoder(waveforms)
        >>> choices["front end in tiles"]
        {''}
    """
    choices: Choices = {}
    token = _CHOICES.set(choices)
    try:
        yield choices
    finally:
        _CHOICES.reset(token)


def takes(way: str, obstacle: str | None) -> bool:
    """True if a fast implementation is used, that is, if there is no obstacle (a reason in words). The choice is
    recorded.
    """
    if not torch.compiler.is_compiling():
        choices = _CHOICES.get()
        if choices is not None:
            choices.setdefault(way, set()).add(obstacle or "")
    return obstacle is None


def inference_obstacle(x: Tensor) -> str | None:
    """The reason why x cannot be computed by a kernel for inference on a CPU, or None."""
    if torch.is_grad_enabled():
        return "gradients are enabled"
    if torch.compiler.is_compiling() or torch._C._get_tracing_state():
        return "the computation is traced or compiled"
    if x.device.type != "cpu":
        return f"the input is on {x.device.type}"
    return backend_obstacle() or tensor_obstacle(x)


def backend_obstacle() -> str | None:
    """The reason why no module may be bypassed and no operator replaced for any tensors, or None."""
    if torch.compiler.is_compiling():
        return None
    if _BACKEND.get() == "reference":
        return "the backend is `reference`"
    # FLOP counters, fake tensors and loggers need to see the standard operators.
    if torch._C._len_torch_dispatch_stack():
        return "a dispatch mode is active"
    if torch._C._len_torch_function_stack():
        modes = _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
        if not all(isinstance(mode, DeviceContext) for mode in modes):
            return "a function mode is active"
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return "a transform of torch.func is active"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation is active"
    return None


def attention_kernels(x: Tensor) -> AbstractContextManager[None]:
    """A context for `scaled_dot_product_attention` on inputs such as x.

    FLOP counters and forward-mode differentiation do not support the kernel that torch uses on a CPU (the former
    silently count nothing for it); for them, its parts are computed separately.
    """
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        return nullcontext()
    if not torch._C._len_torch_dispatch_stack() and forward_ad._current_level < 0:
        return nullcontext()
    counted: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
    return counted


def tensor_obstacle(*tensors: Tensor | None) -> str | None:
    """The reason why a kernel may not read some tensors' memory as rows of floating-point numbers, or None."""
    for tensor in tensors:
        if tensor is None:
            continue
        # Quantised, distributed and fake tensors are subclasses with a memory layout of their own.
        if type(tensor) is not Tensor and type(tensor) is not nn.Parameter:
            return f"a tensor is a {type(tensor).__name__}"
        if tensor.layout is not torch.strided or not tensor.is_floating_point():
            return "a tensor is not strided floating-point numbers"
    return None


def module_obstacle(module: nn.Module | None, expected: type[nn.Module]) -> str | None:
    """The reason why a module's weight and bias may not be used without calling it, or None.

    It has to be called if an adapter (such as LoRA) or a quantised module has taken its place, if it has hooks, or if
    its weights are fetched when it is called (offloading).
    """
    if type(module) is not expected:
        return f"{type(module).__name__} is in the place of {expected.__name__}"
    if module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__:
        return f"{expected.__name__} has a hook"
    if module_internals._global_forward_hooks or module_internals._global_forward_pre_hooks:
        return "there are global hooks"
    return tensor_obstacle(getattr(module, "weight", None), getattr(module, "bias", None))


def dtype_obstacle(dtype: torch.dtype, *modules: nn.Module | None) -> str | None:
    """The reason why the weights of some modules cannot be combined with inputs of a dtype on a CPU, or None."""
    for module in modules:
        for tensor in (getattr(module, "weight", None), getattr(module, "bias", None)):
            if tensor is None:
                continue
            if tensor.dtype != dtype:
                return f"weights are {tensor.dtype} and the input is {dtype}"
            if tensor.device.type != "cpu":
                return f"weights are on {tensor.device.type}"
    return None
