"""`from_pretrained`, `save_pretrained` and `push_to_hub` of encoders: what is saved is what is loaded."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel

import models
import slimvox
import whisper_models
from hub_server import COMMIT, Hub, serving
from slimvox import SlimvoxError, SpeechEncoder
from slimvox.checkpoint import load_model, write_slimvox_directory
from slimvox.checkpoint.decoder import has_decoder
from slimvox.pruning.masks import Masks
from slimvox.pruning.surgery import slice_encoder
from slimvox.structures import Address

CARD = "---\nlicense: mit\n---\n# pruned\n"


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    return models.directory(tmp_path / "dense", "wavlm", "base")


@pytest.fixture
def pruned(dense: Path, tmp_path: Path) -> Path:
    """Something pruned, with its kept indices, teacher and model card."""
    teacher = slimvox.load(dense)
    masks: Masks = {Address("intermediate", 0): (torch.arange(48) % 3 > 0).float()}
    sliced = slice_encoder(teacher, masks)
    write_slimvox_directory(
        sliced.encoder,
        tmp_path / "pruned",
        kept_indices=sliced.kept.to_dict(),
        model_card=CARD,
        details={"teacher": {"name": "dense", "licence": "mit"}, "run": {"seed": 7}},
    )
    return tmp_path / "pruned"


def states(encoder: Any) -> torch.Tensor:
    waveform = torch.linspace(-1, 1, 3000).sin()[None]
    with torch.no_grad():
        return torch.stack(encoder.as_encoder()(waveform).hidden_states)


def test_a_dense_encoder_is_saved_edited_and_loaded(dense: Path, tmp_path: Path) -> None:
    encoder = SpeechEncoder.from_pretrained(dense)
    assert not encoder.training
    with torch.no_grad():
        encoder.layers[1].feed_forward.output_dense.weight.add_(0.5)
    assert encoder.save_pretrained(tmp_path / "saved") == tmp_path / "saved"
    again = SpeechEncoder.from_pretrained(tmp_path / "saved")
    assert torch.equal(states(again), states(encoder))
    assert not torch.equal(states(again), states(slimvox.load(dense)))
    assert load_model(tmp_path / "saved").kept_indices() is None
    auto = AutoModel.from_pretrained(tmp_path / "saved", trust_remote_code=True)
    assert torch.equal(states(auto), states(again))
    assert "Input: 16 kHz" in (tmp_path / "saved" / "README.md").read_text()


def test_what_is_known_of_a_pruned_encoder_is_taken_along(pruned: Path, tmp_path: Path) -> None:
    encoder = slimvox.load(pruned)
    with torch.no_grad():
        encoder.layer_norm.bias.add_(1)
    copy.deepcopy(encoder).save_pretrained(tmp_path / "tuned")
    again = slimvox.load(tmp_path / "tuned")
    assert torch.equal(states(again), states(encoder))
    assert again.dense_anatomy == encoder.dense_anatomy != again.anatomy
    for name in ("kept_indices.json", "README.md"):
        assert (tmp_path / "tuned" / name).read_text() == (pruned / name).read_text()
    loaded = load_model(tmp_path / "tuned")
    assert loaded.teacher == {"name": "dense", "licence": "mit"}
    kept = loaded.kept_indices()
    assert kept is not None and kept.anatomy(again.dense_anatomy) == again.anatomy
    again.save_pretrained(tmp_path / "tuned")  # onto itself
    assert load_model(tmp_path / "tuned").kept_indices() == kept


def test_an_encoder_does_not_inherit_the_kept_indices_of_another(
    pruned: Path, dense: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    teacher = slimvox.load(dense)
    other = slice_encoder(teacher, {Address("intermediate", 1): (torch.arange(48) % 2).float()}).encoder
    other.save_pretrained(pruned)  # over the directory of another encoder
    assert "not known" in caplog.text
    assert not (pruned / "kept_indices.json").exists()
    assert torch.equal(states(slimvox.load(pruned)), states(other))
    assert "mit" not in (pruned / "README.md").read_text()
    assert "teacher" not in json.loads((pruned / "config.json").read_text())


def test_a_directory_that_holds_another_encoder_by_now_gives_nothing(
    pruned: Path, dense: Path, tmp_path: Path
) -> None:
    encoder = slimvox.load(pruned)
    slimvox.load(dense).save_pretrained(pruned)
    encoder.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / "kept_indices.json").exists()
    assert "pruned from" in (tmp_path / "saved" / "README.md").read_text()
    assert torch.equal(states(slimvox.load(tmp_path / "saved")), states(encoder))


def test_the_folder_may_change_between_loading_and_saving(
    pruned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    encoder = slimvox.load("pruned")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    encoder.save_pretrained("saved")
    assert load_model("saved").kept_indices() == load_model(pruned).kept_indices()
    assert Path("saved/README.md").read_text() == CARD
    shutil.rmtree(pruned)
    encoder.save_pretrained("again")
    assert "is no longer there, so its model card" in caplog.text


def test_a_decoder_is_not_lost_silently(tmp_path: Path) -> None:
    encoder = slimvox.load(whisper_models.directory(tmp_path / "whisper"))
    shutil.move(tmp_path / "whisper", tmp_path / "moved")
    with pytest.raises(SlimvoxError, match="a decoder in it would be lost"):
        encoder.save_pretrained(tmp_path / "saved")
    encoder.origin = tmp_path / "moved"
    encoder.save_pretrained(tmp_path / "saved")
    assert has_decoder(tmp_path / "saved")


@pytest.mark.parametrize("dtype", [torch.bfloat16, "float16"])
def test_types_and_devices(dense: Path, tmp_path: Path, dtype: Any) -> None:
    encoder = SpeechEncoder.from_pretrained(str(dense), dtype=dtype, device="cpu")
    expected = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    assert {each.dtype for each in encoder.parameters()} == {expected}
    encoder.save_pretrained(tmp_path / "half")
    assert AutoModel.from_pretrained(tmp_path / "half", trust_remote_code=True).dtype == expected
    again = slimvox.load(tmp_path / "half")
    assert {each.dtype for each in again.parameters()} == {torch.float32}
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor.float())


def test_types_and_devices_that_are_none(dense: Path) -> None:
    with pytest.raises(SlimvoxError, match="`dtype` must be a floating-point type"):
        slimvox.load(dense, dtype="int8")
    with pytest.raises(SlimvoxError, match="`device` must be"):
        slimvox.load(dense, device="gpu")
    for device in ("cuda:99", torch.device("cuda", 99), torch.device("xpu", 99), "vulkan"):
        with pytest.raises(SlimvoxError, match=f"`device` is {device}, but this machine"):
            slimvox.load(dense, device=device)
    assert slimvox.load(dense, device="meta").layer_norm.weight.is_meta


@pytest.fixture
def hub(pruned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving(monkeypatch, tmp_path / "cache", model=pruned) as server:
        server.uploads = tmp_path / "uploads"
        yield server


def test_an_encoder_goes_to_the_hub_and_comes_back(hub: Hub, pruned: Path, tmp_path: Path) -> None:
    encoder = slimvox.load("someone/model", revision=COMMIT, token="secret")
    assert hub.tokens == {"Bearer secret"}
    url = encoder.push_to_hub("someone/new", token="mine", commit_message="A small encoder")
    assert "someone/new" in url and "Bearer mine" in hub.tokens
    uploaded = tmp_path / "uploads" / "someone" / "new"
    assert (uploaded / "README.md").read_text() == CARD
    assert (uploaded / "kept_indices.json").read_bytes() == (pruned / "kept_indices.json").read_bytes()
    again = SpeechEncoder.from_pretrained("someone/new")
    assert torch.equal(states(again), states(encoder))


def test_the_cache_alone_and_a_cache_of_ones_own(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(SlimvoxError, match="local_files_only"):
        slimvox.load("someone/model", local_files_only=True)
    first = slimvox.load("someone/model", cache_dir=tmp_path / "own")
    hub.requests.clear()
    again = slimvox.load("someone/model", cache_dir=tmp_path / "own", local_files_only=True)
    assert not hub.requests and torch.equal(states(first), states(again))
    with pytest.raises(SlimvoxError, match="local_files_only"):
        slimvox.load("someone/model", local_files_only=True)


def test_a_hub_that_refuses_is_named(hub: Hub, dense: Path) -> None:
    with pytest.raises(SlimvoxError, match="someone/forbidden cannot be pushed"):
        slimvox.load(dense).push_to_hub("someone/forbidden")
    with pytest.raises(SlimvoxError, match="cannot be pushed"):
        slimvox.load(dense).push_to_hub("no such/name at all")
