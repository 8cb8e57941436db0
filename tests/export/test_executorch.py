"""ExecuTorch programs of encoders as pruning leaves them, and the crops that they need."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import slimvox
from drawn import odd_encoder
from missing_packages import hide_packages
from slimvox import SlimvoxError, export
from slimvox.checkpoint import write_slimvox_directory
from slimvox.evaluation.upstreams import load_upstream
from slimvox.exporters import executorch_file, export_format
from slimvox.exporters.crop import crops_as_slices, pad


@pytest.mark.parametrize("amounts", [(-1, 2), (0, -3, -2, 2), (0, 0, 1, -2), (0, 0, -2, -1), (0, 0, 0, 0)])
def test_slices_crop_as_negative_padding_does(amounts: tuple[int, ...]) -> None:
    x = torch.randn(2, 5, 7)
    with crops_as_slices():
        torch.testing.assert_close(pad(x, amounts), F.pad(x, amounts), atol=0, rtol=0)
    torch.testing.assert_close(pad(x, amounts), F.pad(x, amounts), atol=0, rtol=0)


def test_the_extra_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_packages(monkeypatch, "executorch")
    with pytest.raises(SlimvoxError, match=r'ExecuTorch needs executorch, which .*"slimvox\[executorch\]"$'):
        export("embedded", tmp_path / "encoder.pte", format="executorch")
    with pytest.raises(SlimvoxError, match=r'"slimvox\[executorch\]"$'):
        slimvox.benchmark("embedded", backends=["executorch"])
    assert not list(tmp_path.iterdir())


def test_a_program_gives_the_hidden_states_of_torch_at_any_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("executorch")
    monkeypatch.setattr(
        executorch_file, "LONGEST_SECONDS", 0.25
    )  # 20 samples to a frame: 30 s need gigabytes
    write_slimvox_directory(odd_encoder(), tmp_path / "odd", kept_indices={}, model_card="")
    exported = export(tmp_path / "odd", format="executorch")
    assert exported.worst_difference < 1e-4 and exported.path == tmp_path / "odd" / "encoder.pte"
    program = export_format("executorch").open(exported.path, threads=1)
    assert tuple(program.outputs) == exported.outputs and program.metadata["precision"] == "float32"
    ours, theirs = load_upstream(exported.path), load_upstream(tmp_path / "odd")
    waveforms = torch.randn(2, 1_501)
    first = ours(waveforms)
    torch.testing.assert_close(first, theirs(waveforms), atol=2e-4, rtol=1e-3)
    copy = first.clone()
    ours(torch.randn(1, 900))
    np.testing.assert_array_equal(first.numpy(), copy.numpy(), "a later run must not overwrite")
    with pytest.raises(SlimvoxError, match="takes clips of up to 4000 samples, but one has 4001"):
        ours(torch.randn(1, 4_001))
    (tmp_path / "broken.pte").write_bytes(b"not a program")
    with pytest.raises(SlimvoxError, match=r"ExecuTorch cannot read .*broken\.pte"):
        load_upstream(tmp_path / "broken.pte")
