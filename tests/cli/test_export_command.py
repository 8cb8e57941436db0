"""`slimvox export` as a user types it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import models
from missing_packages import exports, hide_packages
from slimvox.cli.main import run

pytestmark = exports("onnx")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.directory(tmp_path_factory.mktemp("model"), "wavlm", num_hidden_layers=1)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


def test_export_says_what_it_measured(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "small.onnx"
    assert run(["export", str(model), "--int8", "--mask", "--out", str(target)]) == 0
    text = said(capsys)
    assert f"written to {target}" in text
    assert "reads waveforms, attention_mask; returns hidden_state_00 ... hidden_state_01, frame_mask" in text
    assert "worst difference from torch before quantisation" in text
    assert "int8 changes the hidden states by" in text
    assert list(tmp_path.iterdir()) == [target]
    before = target.read_bytes()
    assert run(["export", str(model), "--out", str(target)]) == 2
    assert "exists already" in said(capsys)
    assert target.read_bytes() == before
    assert run(["export", str(model), "--layers", "last", "--out", str(target), "--force"]) == 0
    assert "returns last_hidden_state" in said(capsys)
    assert target.read_bytes() != before


def test_bad_input_is_one_sentence_and_leaves_nothing(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recordings").mkdir()
    out = ["--out", str(tmp_path / "model.onnx")]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "config.json").write_text('{"model_type": "bert"}')
    elsewhere = str(tmp_path / "elsewhere")
    cases: list[tuple[list[str], str]] = [
        (["export", elsewhere, *out], "but is 'bert' instead"),
        (["export", elsewhere, "--heads", *out], "but is 'bert' instead"),
        (["export", str(model), "--heads", *out], "there is no task head in it"),
        (["export", str(model), "--layers", "none", *out], "nothing to export"),
        (["export", "/no/such/model", *out], "there is no directory"),
        (["export", str(tmp_path / "recordings"), *out], "no config.json"),
        (["export", str(model), "--opset", "11", *out], "must be from 18"),
        (["export", str(model), "--opset", "999", *out], "must be from 18"),
        (["export", str(model), "--int8", "--format", "torch-export", *out], "int8 is for"),
        (
            ["export", str(model), "--format", "tflite", *out],
            "must be one of onnx, torch-export, openvino, executorch, but is 'tflite'",
        ),
        (["export", str(model), "--int8", "--max-error", "0", *out], "`--max-error` must be above 0"),
        (["export", str(model), "--out", str(tmp_path)], "is a directory"),
        (["export", str(model), "--out", str(tmp_path / "no" / "model.onnx")], "there is no directory"),
        (["export", str(model), "--out", "/proc/model.onnx"], "cannot be written"),
    ]
    for arguments, message in cases:
        assert run(arguments) == 2, arguments
        text = said(capsys)
        assert message in text, (arguments, text)
        assert "Traceback" not in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "recordings"]


def test_a_head_is_mentioned_and_exported_when_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models.model("hubert", head="ctc", vocab_size=9).save_pretrained(tmp_path)
    assert run(["export", str(tmp_path), "--layers", "last"]) == 0
    assert "the model's task head (ForCTC) was left out; --heads exports it" in said(capsys)
    assert run(["export", str(tmp_path), "--heads", "--int8", "--force"]) == 0
    text = said(capsys)
    assert f"written to {tmp_path / 'model-int8.onnx'}" in text
    assert "returns logits worst difference" in text and "int8 changes the logits by" in text
    assert "left out" not in text


def test_a_missing_package_names_the_extra(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_packages(monkeypatch, "onnxruntime")
    assert run(["export", str(model), "--out", str(tmp_path / "model.onnx")]) == 2
    text = said(capsys)
    assert "needs onnxruntime" in text and 'pip install "slimvox[onnx]"' in text
    assert not os.listdir(tmp_path)
