"""Device, precision and processes, through accelerate."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState

from slimvox.devices import check_device
from slimvox.errors import SlimvoxError

PRECISIONS = ("auto", "float32", "bf16")


def build_accelerator(*, device: str, precision: str, log_directory: Path) -> Accelerator:
    """One process here, or this process's share of `accelerate launch`.

    Args:
        device: `auto` takes what accelerate finds (a GPU before the CPU).
        precision: `auto` is bf16 autocast where the hardware has instructions for it (GPUs, and CPUs with
            AVX512-BF16 or AMX, on which a training step takes 0.6 of the time), and float32 elsewhere.
        log_directory: where TensorBoard's events go, if it is installed.

    Raises:
        SlimvoxError: if the device is not there, or the name unknown.
    """
    check_device(device)
    if precision not in PRECISIONS:
        raise SlimvoxError(
            f"`precision` must be one of {', '.join(PRECISIONS)}, but is {precision!r} instead"
        )
    if precision == "auto":
        precision = "bf16" if _bf16_pays(device) else "float32"
    # accelerate keeps one state per process: an earlier run in this process may have had another precision.
    AcceleratorState._reset_state()
    return Accelerator(
        cpu=device == "cpu",
        mixed_precision="bf16" if precision == "bf16" else "no",
        log_with="tensorboard" if importlib.util.find_spec("tensorboard") else None,
        project_dir=str(log_directory),
        # In pre-norm models the loss does not see the last norm.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


def _bf16_pays(device: str) -> bool:
    """Whether the hardware multiplies bf16 matrices faster than float32 ones."""
    if device in ("auto", "cuda") and torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    if device == "mps" or (device == "auto" and torch.backends.mps.is_available()):
        return False
    supported = (
        getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return any(check is not None and check() for check in supported)
