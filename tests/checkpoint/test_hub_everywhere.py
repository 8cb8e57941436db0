"""`revision` and `token` wherever a model is named: in every function, and on the command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import models
import slimvox
from hub_server import Hub, serving
from missing_packages import exports
from slimvox.checkpoint.carry import load_with_head
from slimvox.checkpoint.resolve import find_model
from slimvox.cli.main import run
from slimvox.util.environment import hub_token

MODEL = "someone/model"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with a model, for which `HF_TOKEN` is not set."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    path = models.directory(tmp_path / "repository", "wavlm")
    with serving(monkeypatch, tmp_path / "cache", model=path) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a recording, and a table of keyword spotting."""
    folder = tmp_path / "audio"
    folder.mkdir()
    soundfile.write(folder / "a.wav", np.zeros(16_000, np.float32), 16_000)
    rows = [f"a.wav\t{split}\tword" for split in ("train", "dev", "test")]
    (folder / "ks.tsv").write_text("\n".join(["path\tsplit\tlabel", *rows]) + "\n")
    return folder


FUNCTIONS: dict[str, Callable[..., object]] = {
    "load": lambda folder, **hub: slimvox.load(MODEL, **hub),
    "from_pretrained": lambda folder, **hub: slimvox.SpeechEncoder.from_pretrained(MODEL, **hub),
    "load_with_head": lambda folder, **hub: load_with_head(MODEL, **hub),
    "carry_head": lambda folder, **hub: slimvox.carry_head(MODEL, "embedded", **hub),
    "encode": lambda folder, **hub: slimvox.encode(np.zeros(16_000, np.float32), MODEL, **hub),
    "encode_files": lambda folder, **hub: slimvox.encode_files(MODEL, folder, folder / "out", **hub),
    "compare": lambda folder, **hub: slimvox.compare(MODEL, folder, teacher="embedded", **hub),
    "evaluate": lambda folder, **hub: slimvox.evaluate(
        MODEL, folder, manifests={"ks": [folder / "ks.tsv"]}, cache=folder / "cache", **hub
    ),
    "export": lambda folder, **hub: slimvox.export(MODEL, folder / "a.onnx", **hub),
    "benchmark": lambda folder, revision, token: slimvox.benchmark(
        "embedded", against=f"{MODEL}@{revision}", token=token
    ),
    "prune": lambda folder, **hub: slimvox.prune(MODEL, folder, folder / "run", **hub),
    "Pruner": lambda folder, **hub: slimvox.Pruner(MODEL, folder, folder / "run", **hub).run(),
}


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=exports("onnx")) if each == "export" else each for each in FUNCTIONS]
)
def test_every_function_asks_for_the_revision_with_the_token(name: str, hub: Hub, folder: Path) -> None:
    with pytest.raises(slimvox.SlimvoxError, match="there is no revision 'v9' of this model"):
        FUNCTIONS[name](folder, revision="v9", token="hf_secret")
    assert hub.tokens == {"Bearer hf_secret"}
    assert "HF_TOKEN" not in os.environ


@pytest.mark.parametrize(
    "command",
    [
        ["inspect", MODEL],
        ["prune", MODEL, "FOLDER", "--out", "FOLDER/run"],
        ["encode", MODEL, "FOLDER", "--out", "FOLDER/out"],
        ["compare", MODEL, "FOLDER", "--teacher", "embedded"],
        ["evaluate", MODEL, "--data", "FOLDER", "--manifest", "ks=FOLDER/ks.tsv", "--cache", "FOLDER/cache"],
        pytest.param(["export", MODEL, "--out", "FOLDER/a.onnx"], marks=exports("onnx")),
        ["benchmark", "embedded", "--against", f"{MODEL}@v9"],
    ],
)
def test_every_command_asks_for_the_revision_with_the_token(
    command: list[str], hub: Hub, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [each.replace("FOLDER", str(folder)) for each in command]
    revision = [] if command[0] == "benchmark" else ["--revision", "v9"]
    assert run([*arguments, *revision, "--token", "hf_secret"]) == 2
    assert "there is no revision 'v9' of this model" in " ".join(capsys.readouterr().err.split())
    assert hub.tokens == {"Bearer hf_secret"}
    assert "HF_TOKEN" not in os.environ


def test_a_token_gives_way_to_the_earlier_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "earlier")
    with hub_token("hf_secret"):
        assert os.environ["HF_TOKEN"] == "hf_secret"
    with hub_token(None):
        assert os.environ["HF_TOKEN"] == "earlier"
    assert os.environ["HF_TOKEN"] == "earlier"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("embedded", "models on the Hugging Face hub, which embedded is not"),
        ("someone/model@v1", "someone/model@v1 names a revision, so `revision` must not be 'v2'"),
        (Path("someone/model"), "models on the Hugging Face hub, which someone/model is not"),
    ],
)
def test_a_revision_of_something_else_is_refused(model: Any, message: str) -> None:
    with pytest.raises(slimvox.SlimvoxError, match=message):
        find_model(model, revision="v2")


@exports("onnx")
def test_a_revision_of_an_encoder_in_memory_is_refused() -> None:
    with pytest.raises(slimvox.SlimvoxError, match="which a SpeechEncoder is not"):
        slimvox.export(slimvox.load("embedded"), "a.onnx", revision="v2")
