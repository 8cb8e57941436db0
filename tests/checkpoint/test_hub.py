"""Models on the hub: which files are fetched, what is asked again, and what happens offline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from torch import Tensor

import models
import slimvox
from hub_server import COMMIT, Hub, serving
from slimvox.checkpoint import hub as hub_module
from slimvox.checkpoint import load_model, write_slimvox_directory
from slimvox.checkpoint.resolve import find_anatomies


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The files of a model, with weights in a pickle, as many published models have."""
    path = models.directory(tmp_path / "repository", "wavlm", "large")
    (path / "preprocessor_config.json").write_text("{}")
    (path / "README.md").write_text("---\nlicense: mit\n---\n")
    torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    return path


@pytest.fixture
def hub(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with that model as `someone/model`."""
    with serving(monkeypatch, tmp_path / "cache", model=repository) as server:
        yield server


NEEDED = ["README.md", "config.json", "preprocessor_config.json", "pytorch_model.bin"]


def test_only_what_a_model_needs_is_fetched(hub: Hub, repository: Path) -> None:
    for number in range(1162):
        with (repository / f"adapter.{number}.safetensors").open("wb") as file:
            file.truncate(9_000_000)  # as many and as large as those of facebook/mms-1b-all: 10 GB
    for name in ("adapter_model.safetensors", "tf_model.h5", "optimizer.pt", "vocab.json", "code.py"):
        (repository / name).write_bytes(b"of no use")
    loaded = load_model("someone/model")
    assert hub.fetched() == NEEDED
    assert hub.requests.index("GET config.json") < hub.requests.index("HEAD pytorch_model.bin")
    assert len(hub.requests) <= 16
    assert hub.bytes_sent == sum((repository / name).stat().st_size for name in NEEDED)
    assert loaded.encoder.anatomy.normalize_waveform
    expected = slimvox.load(repository)
    waveform = torch.randn(1, 3000)
    assert torch.equal(loaded.encoder(waveform).last_hidden_state, expected(waveform).last_hidden_state)


def test_what_is_in_the_cache_is_not_asked_for_again(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    slimvox.load("someone/model")
    hub.requests.clear()
    slimvox.load("someone/model")
    assert hub.requests == ["HEAD config.json"]
    hub.requests.clear()
    slimvox.load("someone/model", revision=COMMIT)
    assert hub.requests == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    slimvox.load("someone/model")
    assert hub.requests == []


def test_offline_a_cache_that_others_filled_is_enough(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """They don't note which files there are not."""
    from huggingface_hub import hf_hub_download

    for name in ("config.json", "preprocessor_config.json", "pytorch_model.bin"):
        hf_hub_download("someone/model", name)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert slimvox.load("someone/model").anatomy.normalize_waveform
    assert hub.requests == []


def test_the_cache_serves_when_the_hub_cannot_be_reached(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any setting: the network is gone."""
    with serving(monkeypatch, tmp_path / "cache", model=repository) as hub:
        slimvox.load("someone/model")
        endpoint = hub.endpoint
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert slimvox.load("someone/model").anatomy.normalize_waveform


def test_private_models_need_a_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.private = "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(slimvox.SlimvoxError, match=r"nor such a model on the Hugging Face hub.*token"):
        slimvox.load("someone/model")
    assert hub.fetched() == []
    slimvox.load("someone/model", token="hf_secret")
    assert hub.fetched() == NEEDED


def test_the_command_line_reads_from_the_endpoint_in_the_environment(hub: Hub, tmp_path: Path) -> None:
    hub.private = "hf_secret"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_CACHE": str(tmp_path / "own-cache"),
    }
    command = ["inspect", "someone/model", "--token", "hf_secret"]
    subprocess.run([sys.executable, "-m", "slimvox", *command], env=environment, check=True)
    assert hub.fetched() == NEEDED and hub.tokens == {"Bearer hf_secret"}
    assert (tmp_path / "own-cache" / "models--someone--model").is_dir()


@pytest.mark.parametrize(("seconds", "notes"), [(0.0, 1), (60.0, 0)])
def test_a_slow_hub_is_waited_for_with_one_note(
    hub: Hub,
    seconds: float,
    notes: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def slow(name: str, file: str, **options: Any) -> str:
        time.sleep(0.1)
        raise OSError(f"no {file}")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", slow)
    monkeypatch.setattr(hub_module, "NOTE_SECONDS", seconds)
    with pytest.raises(slimvox.SlimvoxError, match="cannot be reached"):
        slimvox.load("someone/model")
    assert caplog.text.count("someone/model: waiting for config.json from the Hugging Face hub") == notes


def test_offline_without_the_weights_is_one_sentence(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    anatomy, _ = find_anatomies("someone/model")
    assert anatomy.normalize_waveform and "pytorch_model.bin" not in hub.fetched()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find_anatomies("someone/model")[0] == anatomy
    with pytest.raises(slimvox.SlimvoxError, match="the Hugging Face hub cannot be reached"):
        slimvox.load("someone/model")


def test_a_hub_that_fails_half_way_is_not_taken_for_missing_files(hub: Hub) -> None:
    """Without the settings of the feature extractor the model would be another one."""
    hub.failing = frozenset({"preprocessor_config.json"})
    with pytest.raises(slimvox.SlimvoxError, match="the Hugging Face hub cannot be reached"):
        slimvox.load("someone/model")
    assert "pytorch_model.bin" not in hub.fetched()
    hub.failing = frozenset()
    assert slimvox.load("someone/model").anatomy.normalize_waveform


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "bert"}, "`model_type` must be one of"),
        ({"adapter_attn_dim": 16}, "not supported yet: `adapter_attn_dim` is 16"),
        ({"hidden_size": "wide"}, "`hidden_size` must be a whole number"),
        ({"model_type": "slimvox", "format_version": 99}, "a newer slimvox"),
    ],
)
def test_a_model_of_no_use_is_refused_before_anything_else_is_fetched(
    changes: dict[str, object], message: str, hub: Hub, repository: Path
) -> None:
    config = json.loads((repository / "config.json").read_text())
    (repository / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(slimvox.SlimvoxError, match=message):
        slimvox.load("someone/model")
    assert hub.fetched() == ["config.json"]


@pytest.mark.parametrize("missing", ["config.json", "pytorch_model.bin", "pytorch_model-2.bin"])
def test_a_missing_file_is_named(missing: str, hub: Hub, repository: Path) -> None:
    if missing == "pytorch_model-2.bin":
        index = {"weight_map": {"a": "pytorch_model-1.bin", "b": "pytorch_model-2.bin"}}
        (repository / "pytorch_model.bin").rename(repository / "pytorch_model-1.bin")
        (repository / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    else:
        (repository / missing).unlink()
    words = {"pytorch_model.bin": "there are no weights in this repository"}.get(missing, missing)
    with pytest.raises(slimvox.SlimvoxError, match=f"someone/model: .*{words}"):
        slimvox.load("someone/model")


@pytest.mark.parametrize(
    ("stem", "ending", "save"),
    [("pytorch_model", ".bin", torch.save), ("model", ".safetensors", save_file)],
)
def test_shards_are_fetched_by_their_index(
    stem: str, ending: str, save: Callable[[dict[str, Tensor], Path], None], hub: Hub, repository: Path
) -> None:
    tensors = torch.load(repository / "pytorch_model.bin", weights_only=True)
    expected = slimvox.load(repository)
    (repository / "pytorch_model.bin").unlink()
    names = sorted(tensors)
    parts = {f"{stem}-1{ending}": names[:9], f"{stem}-2{ending}": names[9:]}
    for file, part in parts.items():
        save({name: tensors[name].clone() for name in part}, repository / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (repository / f"{stem}{ending}.index.json").write_text(json.dumps(index))
    (repository / f"{stem}-3{ending}").write_bytes(b"of no use")
    encoder = slimvox.load("someone/model")
    waveform = torch.randn(1, 3000)
    assert torch.equal(encoder(waveform).last_hidden_state, expected(waveform).last_hidden_state)
    assert hub.fetched() == sorted([*NEEDED[:3], *parts, f"{stem}{ending}.index.json"])


def test_a_model_that_slimvox_pruned_comes_with_its_kept_indices(hub: Hub, repository: Path) -> None:
    encoder = slimvox.load(repository)
    for file in repository.iterdir():
        file.unlink()
    write_slimvox_directory(encoder, repository, kept_indices={}, model_card="")
    loaded = load_model("someone/model")
    assert (loaded.directory / "kept_indices.json").is_file()
    assert not any(name.endswith(".py") for name in hub.fetched())


@pytest.mark.parametrize(
    ("name", "revision", "message"),
    [
        ("someone/nothing", None, "neither such a directory nor such a model"),
        ("someone/bad name", None, "neither such a directory nor such a model"),
        ("someone/model", "no-such-branch", "there is no revision 'no-such-branch' of this model"),
    ],
)
def test_names_that_the_hub_does_not_know(name: str, revision: str | None, message: str, hub: Hub) -> None:
    with pytest.raises(slimvox.SlimvoxError, match=message):
        slimvox.load(name, revision=revision)
