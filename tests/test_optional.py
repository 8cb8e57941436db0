"""A missing or too old optional dependency ends in one sentence that says what to install."""

from __future__ import annotations

import importlib.metadata
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
import soundfile

import slimvox
from missing_packages import hide_packages
from slimvox.exporters import export_formats
from slimvox.pruning.recipe import tomllib
from slimvox.util.imports import require


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """jiwer and onnxruntime are not there."""
    hide_packages(monkeypatch, "jiwer", "onnxruntime")


@pytest.mark.usefixtures("without")
def test_the_packages_and_the_extra_are_named() -> None:
    require(["torch"], "this", extra="onnx")
    with pytest.raises(slimvox.SlimvoxError, match=r'^this needs jiwer, which is not .*"slimvox\[onnx\]"$'):
        require(["torch", "jiwer"], "this", extra="onnx")
    with pytest.raises(
        slimvox.SlimvoxError, match=r"jiwer and onnxruntime, which are not .* jiwer onnxruntime$"
    ):
        require(["jiwer", "onnxruntime"], "this")


@pytest.mark.parametrize(
    ("installed", "enough"),
    [("2.6.0+cu124", False), ("2.7.1", False), ("2.8.0a0+nv25.6", True), ("2.8", True), ("2.13.0+cpu", True)],
)
def test_versions_are_compared_as_numbers(
    installed: str, enough: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: installed)
    if enough:
        require(["torch>=2.8", "numpy"], "this")
    else:
        with pytest.raises(slimvox.SlimvoxError) as raised:
            require(["numpy", "torch>=2.8"], "this", extra="onnx")
        assert str(raised.value) == (
            f'this needs torch>=2.8, but {installed} is installed: pip install "torch>=2.8"'
        )


def test_a_package_that_does_not_say_its_version_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", unknown)
    require(["torch>=2.8"], "this")


@pytest.mark.parametrize(
    ("package", "format"), [("torch", "onnx"), ("onnxscript", "onnx"), ("torch", "torch-export")]
)
def test_versions_that_cannot_export_are_named_before_anything_is_written(
    package: str, format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.6.2" if name == package else "9")
    message = rf'^\S+ needs {package}>=\S+, but 0\.6\.2 is installed: pip install "{package}>=\S+"$'
    with pytest.raises(slimvox.SlimvoxError, match=message):
        slimvox.export("embedded", tmp_path / "encoder", format=format)
    with pytest.raises(slimvox.SlimvoxError, match=message):
        slimvox.benchmark("embedded", backends=[format])
    assert not list(tmp_path.iterdir())


def test_extras_install_the_versions_that_exports_ask_for() -> None:
    path = Path(__file__).parents[1] / "pyproject.toml"
    extras = tomllib.loads(path.read_text())["project"]["optional-dependencies"]
    for each in export_formats():
        wanted = {package for package in each.packages_to_write if ">=" in package}
        assert each.extra is None or wanted <= {*extras[each.extra]}, each.name


@pytest.mark.usefixtures("without")
@pytest.mark.parametrize("task", ["pr", "asr", "sf"])
def test_tasks_with_error_rates_are_refused_before_anything_is_encoded(task: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(16_000, np.float32), 16_000)
    table = tmp_path / "table.tsv"
    table.write_text(
        "path\tsplit\ttext\n" + "".join(f"a.wav\t{split}\ta\n" for split in ("train", "dev", "test"))
    )
    with pytest.raises(
        slimvox.SlimvoxError, match=rf'the task {task} needs jiwer, .*"slimvox\[evaluation\]"'
    ):
        slimvox.evaluate("fbank", tmp_path, manifests={task: [table]}, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
