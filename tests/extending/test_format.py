"""An export format defined outside the package goes through export, its comparison, the benchmark and evaluate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import models
import slimvox
from extending.numpy_weights import NumpyProgram, NumpyWeights
from slimvox.cli.main import run
from slimvox.evaluation.upstreams import load_upstream
from slimvox.exporters import export_format_names, register_format, unregister_format
from slimvox.measure.benchmark import backend_names, benchmark


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register_format(NumpyWeights())
    yield
    unregister_format("npz")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.directory(tmp_path_factory.mktemp("model"), "wavlm", num_hidden_layers=2)


def test_export_and_its_comparison(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = slimvox.export_encoder(model, format="npz")
    assert result.path == model / "encoder.npz" and result.bytes > 10_000
    assert result.worst_difference < 1e-5 and len(result.compared) == 4
    assert run(["export", str(model), "--format", "npz", "--layers", "last", "--force"]) == 0
    assert "returns last_hidden_state" in " ".join(capsys.readouterr().out.split())
    true = NumpyProgram.__call__
    monkeypatch.setattr(NumpyProgram, "__call__", lambda self, *given: [1.01 * x for x in true(self, *given)])
    with pytest.raises(slimvox.SlimvoxError, match="differs from torch by"):
        slimvox.export_encoder(model, tmp_path / "wrong.npz", format="npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["int8", "heads", "mask"])
def test_what_the_format_cannot_hold_is_refused(option: str, model: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {option: True}
    with pytest.raises(slimvox.SlimvoxError, match=f"{option} is for --format onnx"):
        slimvox.export_encoder(model, tmp_path / "file.npz", format="npz", **options)


def test_missing_packages_are_named(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NumpyWeights, "packages_to_write", ("no_such_package",))
    with pytest.raises(
        slimvox.SlimvoxError, match=r"NumPy needs no_such_package, .*pip install no_such_pack"
    ):
        slimvox.export_encoder(model, tmp_path / "file.npz", format="npz")


def test_features_for_evaluation(model: Path, tmp_path: Path) -> None:
    result = slimvox.export_encoder(model, tmp_path / "encoder.npz", format="npz")
    ours, theirs = load_upstream(result.path), load_upstream(model)
    for name in ("frame_rate_hz", "layers", "width", "shortest", "parameters"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.fingerprint != theirs.fingerprint
    waveforms = torch.randn(2, 3_000)
    torch.testing.assert_close(ours(waveforms), theirs(waveforms), atol=1e-4, rtol=1e-4)


def test_the_benchmark_runs_it_in_another_process(model: Path) -> None:
    assert "npz" in backend_names() and "npz-int8" not in backend_names()
    result = benchmark([model], seconds=[0.5], backends=["npz"], threads=1, runs=1)
    assert result.contenders[1].backend == "npz" and result.contenders[1].blocks is None
    assert result.measurements[1].median_ms > 0
    with pytest.raises(slimvox.SlimvoxError, match=r"must be some of torch, .*npz, but has 'npy'"):
        benchmark([model], backends=["npy"])


def test_names_and_endings_are_taken_once() -> None:
    with pytest.raises(ValueError, match="registered already"):
        register_format(NumpyWeights())
    assert export_format_names() == ("onnx", "torch-export", "openvino", "executorch", "npz")
