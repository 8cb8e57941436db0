"""A missing optional dependency ends in one sentence that names the extra."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

import slimvox
from missing_packages import hide_packages
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
