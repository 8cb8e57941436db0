"""Device, precision and processes that a run gets, on machines that are not at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState

import slimvox
from slimvox.pruning.accelerator import build_accelerator, fastest_precision, own_accelerate_state


def test_each_run_in_a_process_gets_its_own_device_and_the_caller_keeps_theirs(tmp_path: Path) -> None:
    with own_accelerate_state():
        AcceleratorState._reset_state(reset_partial_state=True)
        theirs = PartialState(cpu=True)
        theirs.device = torch.device("meta")  # an earlier run's, or a Trainer's
        with own_accelerate_state():
            ours = build_accelerator(device="cpu", precision="float32", log_directory=tmp_path)
            assert ours.device == torch.device("cpu") and ours.mixed_precision == "no"
            again = build_accelerator(device="cpu", precision="bf16", log_directory=tmp_path)
            assert again.mixed_precision == "bf16"
        assert theirs.device == torch.device("meta")


@pytest.mark.parametrize(
    ("capability", "chosen"),
    [((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "fp16"), ((7, 0), "fp16"), ((6, 1), "float32")],
)
def test_a_gpu_gets_the_precision_that_it_has_units_for(
    capability: tuple[int, int], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A V100 or a T4 says that it supports bf16, but has no units for it."""

    def is_supported(including_emulation: bool = True) -> bool:
        return including_emulation or capability >= (8, 0)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert fastest_precision("cuda") == fastest_precision("auto") == chosen
    assert fastest_precision("mps") == "float32"
    assert fastest_precision("cpu") in ("bf16", "float32")


def test_fp16_on_a_cpu_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(slimvox.SlimvoxError, match="`precision` is fp16, which needs a GPU"):
        build_accelerator(device="cpu", precision="fp16", log_directory=tmp_path)


def test_more_processes_than_gpus_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine: dict[str, Any] = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "0", "RANK": "0"}
    for name, value in machine.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(
        slimvox.SlimvoxError, match="2 processes were started on this machine, but it has 1 GPUs"
    ):
        build_accelerator(device="auto", precision="float32", log_directory=tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(slimvox.SlimvoxError, match="2 processes cannot work together on mps"):
        build_accelerator(device="auto", precision="float32", log_directory=tmp_path)
