"""The devices that a command can run on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import torch
from torch import nn

from slimvox.util.errors import SlimvoxError

Device = Literal["auto", "cpu", "cuda", "mps"]
CPU = torch.device("cpu")
DEVICES: tuple[Device, ...] = get_args(Device)


def check_device(device: str) -> None:
    """Raise `SlimvoxError` if the name is unknown, or this machine has no such device."""
    if device not in DEVICES:
        raise SlimvoxError(f"`device` must be one of {', '.join(DEVICES)}, but is {device!r} instead")
    if device != "auto":
        check_presence(torch.device(device))


def check_presence(device: torch.device) -> None:
    """Raise `SlimvoxError` if this machine has no such device, or fewer of its kind."""
    if device.type in ("cpu", "meta"):
        return
    kind: Any = getattr(torch, device.type, None)
    if device.type == "mps":
        is_there = torch.backends.mps.is_available()
    elif hasattr(kind, "is_available"):
        is_there = kind.is_available()
    else:
        is_there = _can_allocate(device)
    if not is_there:
        raise SlimvoxError(
            f"`device` is {device}, but this machine (or this build of torch) has none; try `auto`"
        )
    if device.index and hasattr(kind, "device_count") and device.index >= (count := kind.device_count()):
        raise SlimvoxError(f"`device` is {device}, but this machine has only {count} of this kind")


def _can_allocate(device: torch.device) -> bool:
    """True if a device of a kind that is not part of torch, such as xla, can be used."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, NotImplementedError, ImportError):
        return False
    return True


def find_device(device: str) -> torch.device:
    """The device with a name; for `auto`, a GPU if there is one.

    Raises:
        SlimvoxError: if the name is unknown, or this machine has no such device.
    """
    check_device(device)
    if device != "auto":
        return torch.device(device)
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return torch.device(next(name for name, is_there in there.items() if is_there))


def device_for(model: object, device: str) -> torch.device:
    """The device with a name; for `auto`, that of the model if it is a module.

    Raises:
        SlimvoxError: if the name is unknown, or this machine has no such device.
    """
    if device == "auto" and isinstance(model, nn.Module):
        return next(model.parameters()).device
    return find_device(device)


@contextlib.contextmanager
def evaluating(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Context in which a module is on a device and in evaluation mode; both are restored afterwards."""
    home = next(module.parameters()).device
    in_training = [each for each in module.modules() if each.training]
    try:
        module.to(device).eval()
        yield
    finally:
        module.to(home)
        for each in in_training:
            each.training = True


@contextlib.contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Context in which torch uses a given number of CPU threads."""
    before = torch.get_num_threads()
    if threads == before:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global random state within this context, and restore it afterwards, on every device."""
    gpus = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    with torch.random.fork_rng(gpus):
        torch.manual_seed(seed)
        try:
            yield
        finally:
            if mps is not None:
                torch.mps.set_rng_state(mps)


def read_scalars(scalars: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Values of scalar tensors on one device, read in one transfer, so that the host waits for the device once."""
    return dict(
        zip(scalars, torch.stack([each.detach().float() for each in scalars.values()]).tolist(), strict=True)
    )
