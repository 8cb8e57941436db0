"""A `torch.export` file is as good a source of features as an ONNX file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import models
from missing_packages import exports
from slimvox import SlimvoxError, export_encoder
from slimvox.evaluation.upstreams import load_upstream


@exports("torch-export")
def test_features_from_a_torch_program(tmp_path: Path) -> None:
    model = models.directory(tmp_path, "hubert", num_hidden_layers=1)
    exported = load_upstream(export_encoder(model, format="torch-export", mask=True).path)
    theirs = load_upstream(model)
    waveforms = torch.randn(2, 2_000)
    torch.testing.assert_close(exported(waveforms), theirs(waveforms), atol=1e-4, rtol=1e-4)
    assert exported.parameters == theirs.parameters
    (tmp_path / "broken.pt2").write_bytes(b"not a program")
    with pytest.raises(SlimvoxError, match=r"cannot read .*broken\.pt2"):
        load_upstream(tmp_path / "broken.pt2")
