"""Selection of device, precision and processes, with accelerate."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState

from slimvox.util.devices import check_device
from slimvox.util.errors import SlimvoxError

Precision = Literal["auto", "float32", "bf16", "fp16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def build_accelerator(*, device: str, precision: str, log_directory: Path) -> Accelerator:
    """The accelerator of a single process, or of this process of an `accelerate launch`.

    Args:
        device: `auto` uses the device that accelerate selects (a GPU if there is one).
        precision: `auto` is bf16 autocast if the hardware has instructions for it (GPUs, and CPUs with AVX512-BF16 or
            AMX, on which a training step takes 0.6 times as long as in float32). On GPUs that have units for fp16 only
            (V100, T4) it is fp16 autocast with a scaled loss, and elsewhere float32.
        log_directory: folder for TensorBoard's events, if it is installed.

    Raises:
        SlimvoxError: if the device does not exist, the name is unknown, or the launcher started more processes than can
            work together on such devices.
    """
    check_device(device)
    if precision not in PRECISIONS:
        raise SlimvoxError(
            f"`precision` must be one of {', '.join(PRECISIONS)}, but is {precision!r} instead"
        )
    if precision == "auto":
        precision = fastest_precision(device)
    # On a CPU, accelerate joins the processes of `torchrun` only if it is told that the CPU is meant.
    on_cpu = device == "cpu" or (device == "auto" and not torch.accelerator.is_available())
    if precision == "fp16" and on_cpu:
        raise SlimvoxError("`precision` is fp16, which needs a GPU; try `auto`, or bf16")
    _check_launch(on_cpu)
    # accelerate keeps one state per process: an earlier run in this process may have had another device or precision.
    AcceleratorState._reset_state(reset_partial_state=True)
    had_group = torch.distributed.is_available() and torch.distributed.is_initialized()
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision=precision.replace("float32", "no"),
        log_with="tensorboard" if importlib.util.find_spec("tensorboard") else None,
        project_dir=str(log_directory),
    )
    if accelerator.num_processes > 1 and not had_group:
        atexit.register(_leave_group)
    if device != "auto" and accelerator.device.type != device:
        raise SlimvoxError(
            f"`device` is {device}, but accelerate chose {accelerator.device.type}; unset the environment variables"
            " of accelerate (`ACCELERATE_*`)"
        )
    return accelerator


@contextlib.contextmanager
def own_accelerate_state() -> Iterator[None]:
    """Context in which accelerate has a separate state; the caller's state (of a Trainer, say) is restored
    afterwards.
    """
    kinds = (AcceleratorState, PartialState, GradientState)
    before = [dict(kind._shared_state) for kind in kinds]
    try:
        yield
    finally:
        for kind, state in zip(kinds, before, strict=True):
            kind._shared_state.clear()
            kind._shared_state.update(state)


def _check_launch(on_cpu: bool) -> None:
    """Raise `SlimvoxError` if processes would not know of each other, or would share one GPU."""
    processes, here = (int(os.environ.get(name) or 1) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if processes == 1 or on_cpu:
        return
    if not torch.cuda.is_available() and torch.backends.mps.is_available():
        raise SlimvoxError(
            f"{processes} processes cannot work together on mps; start one, or add `--device cpu`"
        )
    if torch.cuda.is_available() and here > torch.cuda.device_count():
        raise SlimvoxError(
            f"{here} processes were started on this machine, but it has {torch.cuda.device_count()} GPUs; start one"
            " process per GPU (`--nproc-per-node`), or add `--device cpu`"
        )


def _leave_group() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def fastest_precision(device: str) -> str:
    """The precision in which a device multiplies matrices fastest: `bf16`, `fp16` or `float32`."""
    if device in ("auto", "cuda") and torch.cuda.is_available():
        # V100 and T4 emulate bf16, more slowly than they compute in float32; older GPUs have no units for either.
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16"
        return "fp16" if torch.cuda.get_device_capability() >= (7, 0) else "float32"
    if device == "mps" or (device == "auto" and torch.backends.mps.is_available()):
        return "float32"
    supported = (
        getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return "bf16" if any(check is not None and check() for check in supported) else "float32"
