"""`kept_indices.json` of a model that was pruned before is checked before a run, not after it."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import strategies as st

import drawn
import models
import slimvox
from slimvox.checkpoint import load_model, write_slimvox_directory
from slimvox.pruning.surgery import slice_encoder
from slimvox.structures.kept_indices import KeptIndices

Content = dict[str, Any]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pruned WavLM with its kept indices."""
    path = tmp_path_factory.mktemp("pruned")
    dense = slimvox.load(models.directory(path / "dense", "wavlm"))
    sliced = slice_encoder(dense, drawn.uneven_masks(dense.anatomy))
    write_slimvox_directory(
        sliced.encoder, path / "ours", kept_indices=sliced.kept.to_dict(), model_card="card"
    )
    return path / "ours"


@pytest.fixture
def directory(original: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    for file in original.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_the_file_of_a_pruned_model_is_read(original: Path) -> None:
    kept = load_model(original).kept_indices()
    assert kept is not None
    assert kept.to_dict() == json.loads((original / "kept_indices.json").read_text())
    assert load_model("embedded").kept_indices() is None


@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(data=st.data())
def test_whatever_is_pruned_can_be_read_and_pruned_again(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    encoder = drawn.random_encoder(data.draw(drawn.anatomies()), seed=0)
    kept = KeptIndices.everything(encoder.anatomy)
    for _ in range(2):
        sliced = slice_encoder(encoder, data.draw(drawn.masks_for(encoder.anatomy)))
        kept = sliced.kept.within(kept)
        path = tmp_path_factory.mktemp("pruned")
        write_slimvox_directory(sliced.encoder, path, kept_indices=kept.to_dict(), model_card="card")
        model = load_model(path)
        encoder = model.encoder
        assert encoder.anatomy == sliced.encoder.anatomy
        assert model.kept_indices() == kept
        assert kept.anatomy(encoder.dense_anatomy) == encoder.anatomy
        for name, value in sliced.encoder.state_dict().items():
            assert torch.equal(encoder.state_dict()[name], value)


def edit(path: tuple[Any, ...], value: Any) -> Callable[[Content], Any]:
    def change(content: Content) -> Any:
        content = copy.deepcopy(content)
        target: Any = content
        for name in path[:-1]:
            target = target[name]
        target[path[-1]] = value
        return content

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: {}, "the field 'conv' is missing"),
        (edit(("format",), 3), "its format is 3"),
        (edit(("conv",), []), "wrong type"),
        (edit(("conv", "0"), []), "at least 1 of the front-end channels at index 0"),
        (edit(("conv", "9"), [0]), r"of another encoder, with conv\[9\]"),
        (edit(("toes",), {"0": [0]}), r"of another encoder, with toes\[0\]"),
        (edit(("conv", "0"), [0, 1]), "do not make up the encoder in config.json"),
        (edit(("conv", "0", 0), 99), "front-end channels at index 0 must be among"),
        (edit(("conv", "0", 0), -1), "front-end channels at index 0 must be among"),
        (edit(("conv", "0", 1), 0), "in order and each once"),
        (edit(("conv", "0", 1), 1.0), "an index must be a whole number, but is 1.0"),
        (edit(("conv", "0", 1), True), "an index must be a whole number, but is True"),
        (edit(("conv", "0"), None), "kept units must be a list"),
        (edit(("head", "0", 0), 0), "without their block or head|each once"),
        (edit(("head", "0", 0), 7), "heads at index 0 must be among"),
        (edit(("qk", "0", 0), 50), "query and key dimensions at index 0"),
        (edit(("vo", "0"), "all"), "kept units must be a list"),
        (edit(("head", "0"), 5), "kept units must be a list"),
        (edit(("conv",), {"first": [0]}), "not by 'first'"),
        (edit(("intermediate", "1", 0), 1000), "feed-forward dimensions at index 1"),
        (edit(("attention", "1"), "yes"), "kept units must be a list"),
        (edit(("attention", "1"), []), "without their block or head"),
    ],
)
def test_a_file_of_another_encoder_is_refused_before_the_run(
    change: Callable[[Content], Any], message: str, directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = directory / "kept_indices.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    out = tmp_path_factory.mktemp("out")
    with pytest.raises(slimvox.SlimvoxError, match=rf"kept_indices\.json does not fit .*({message})"):
        slimvox.prune(directory, directory, out)
    assert not list(out.iterdir())


def test_a_lost_file_is_said(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    (directory / "kept_indices.json").unlink()
    with caplog.at_level(logging.WARNING, logger="slimvox.checkpoint"):
        assert load_model(directory).kept_indices() is None
    assert "numbered as in the pruned encoder, not as in the dense one" in caplog.text


def test_everything_is_kept_of_an_encoder_that_is_whole() -> None:
    anatomy = load_model("embedded").encoder.anatomy
    everything = KeptIndices.everything(anatomy)
    assert everything.anatomy(anatomy) == anatomy
    assert KeptIndices.from_dict(everything.to_dict(), anatomy) == everything
