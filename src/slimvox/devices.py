"""The devices a command can be told to run on."""

from __future__ import annotations

from typing import Literal

import torch

from slimvox.errors import SlimvoxError

Device = Literal["auto", "cpu", "cuda", "mps"]
DEVICES = ("auto", "cpu", "cuda", "mps")


def check_device(device: str) -> None:
    """Raise `SlimvoxError` if the name is unknown, or this machine has no such device."""
    if device not in DEVICES:
        raise SlimvoxError(f"`device` must be one of {', '.join(DEVICES)}, but is {device!r} instead")
    if (device == "cuda" and not torch.cuda.is_available()) or (
        device == "mps" and not torch.backends.mps.is_available()
    ):
        raise SlimvoxError(
            f"`device` is {device}, but this machine (or this build of torch) has none; try `auto`"
        )


def find_device(device: str) -> torch.device:
    """The device of a name; of `auto`, a GPU where there is one.

    Raises:
        SlimvoxError: if the name is unknown, or this machine has no such device.
    """
    check_device(device)
    if device != "auto":
        return torch.device(device)
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return torch.device(next(name for name, is_there in there.items() if is_there))
