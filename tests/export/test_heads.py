"""Models with a task head, exported whole: the logits are those that torch computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForAudioFrameClassification,
    AutoModelForAudioXVector,
    AutoModelForCTC,
    AutoModelForSequenceClassification,
)

import drawn
import models
import slimvox
from missing_packages import exports
from slimvox import SlimvoxError, export_encoder
from slimvox.checkpoint import write_slimvox_directory
from slimvox.checkpoint.carry import load_with_head
from slimvox.exporters import Int8Errors
from slimvox.exporters.exportable import ExportableModel
from slimvox.pruning.surgery import slice_encoder

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

TDNN = {"tdnn_dim": [8, 6], "tdnn_kernel": [3, 2], "tdnn_dilation": [2, 1], "xvector_output_dim": 5}
CASES: dict[str, tuple[Any, dict[str, Any], tuple[str, ...]]] = {
    "ForCTC": (AutoModelForCTC, {"vocab_size": 7, "pad_token_id": 3}, ("logits",)),
    "ForSequenceClassification": (
        AutoModelForSequenceClassification,
        {"num_labels": 4, "classifier_proj_size": 9, "use_weighted_layer_sum": True},
        ("logits",),
    ),
    "ForAudioFrameClassification": (
        AutoModelForAudioFrameClassification,
        {"num_labels": 3, "use_weighted_layer_sum": False},
        ("logits",),
    ),
    "ForXVector": (AutoModelForAudioXVector, {"num_labels": 3, **TDNN}, ("logits", "embeddings")),
}


def with_head(case: str, path: Path, family: str = "wavlm", layout: str = "base") -> Path:
    """A directory of an encoder, cut unevenly, with a head of random weights."""
    encoder = slimvox.load(models.directory(path / "dense", family, layout))
    masks = drawn.uneven_masks(encoder.anatomy)
    sliced = slice_encoder(encoder, masks).encoder
    write_slimvox_directory(sliced, path / "pruned", kept_indices={}, model_card="")
    auto_class, fields, _ = CASES[case]
    model = auto_class.from_pretrained(path / "pruned", **fields)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("slimvox."):
                parameter.copy_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(path / "tuned")
    return path / "tuned"


def padded(samples: int = 2_000) -> tuple[Tensor, Tensor]:
    """Three clips: whole, shorter, and nothing but padding."""
    mask = torch.arange(samples) < torch.tensor([[samples], [samples // 2], [0]])
    return torch.randn(3, samples) * mask, mask


def axes(file: Any) -> list[list[str | int]]:
    """Names or sizes of every output."""
    return [
        [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in file.graph.output
    ]


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_what_is_exported_computes_what_the_auto_class_does(case: str, masked: bool, tmp_path: Path) -> None:
    directory = with_head(case, tmp_path)
    auto_class, _, names = CASES[case]
    model = auto_class.from_pretrained(directory)
    exportable = ExportableModel(slimvox.load(directory), load_with_head(directory), layers="none")
    for samples in (900, 2_000):
        waveforms, mask = padded(samples)
        if not masked:
            waveforms, mask = torch.randn(2, samples), torch.ones(2, samples, dtype=torch.bool)
        with torch.no_grad():
            found = exportable(waveforms, mask if masked else None)
            expected = model(waveforms, mask.long() if masked else None)
            speech = model.frame_mask(mask)
        assert len(found) == len(names) + masked
        assert not masked or torch.equal(found[-1], speech)
        for name, ours in zip(names, found, strict=False):
            theirs = expected[name]
            assert torch.isfinite(ours).all() and torch.isfinite(theirs).all()
            if ours.ndim == 3:
                ours, theirs = ours[speech], theirs[speech]
            torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-4)


@exports("onnx")
def test_speaker_embeddings_from_onnxruntime(tmp_path: Path) -> None:
    directory = with_head("ForXVector", tmp_path)
    result = export_encoder(directory, heads=True, layers="last", mask=True)
    assert result.path == directory / "model.onnx" and result.head_left_out is None
    assert result.outputs == ("last_hidden_state", "logits", "embeddings", "frame_mask")
    assert result.worst_difference < 1e-4
    file = onnx.load(result.path)
    about = {entry.key: entry.value for entry in file.metadata_props}
    assert (about["head"], about["layers"]) == ("ForXVector", "last")
    assert json.loads(about["labels"]) == ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert axes(file)[:3] == [["batch", "frames", 32], ["batch", 5], ["batch", 5]]
    model = AutoModelForAudioXVector.from_pretrained(directory)
    waveforms, mask = padded()
    given = {"waveforms": waveforms.numpy(), "attention_mask": mask.numpy()}
    _, logits, embeddings, _ = session(result.path).run(None, given)
    with torch.no_grad():
        expected = model(waveforms, mask.long())
    assert np.isfinite(embeddings).all()
    np.testing.assert_allclose(embeddings, expected.embeddings.numpy(), atol=2e-4, rtol=1e-4)
    np.testing.assert_allclose(logits, expected.logits.numpy(), atol=2e-4, rtol=1e-4)
    # The head reads several frames at once; the shortest clip of which it can is the one that the file names.
    shortest = int(about["shortest_samples"])
    assert (
        result.compared[0] == (1, shortest)
        and model.fewest_frames == slimvox.load(directory).anatomy.frames(shortest) == 6
    )
    with pytest.raises(ValueError, match="at least 6 frames for this head, but holds 5"):
        model(torch.randn(1, shortest - 1))


@exports("onnx")
def test_logits_of_a_pruned_model_alone(tmp_path: Path) -> None:
    directory = with_head("ForCTC", tmp_path)
    result = export_encoder(directory, heads=True)
    assert result.outputs == ("logits",)
    file = onnx.load(result.path)
    about = {entry.key: entry.value for entry in file.metadata_props}
    assert (about["head"], about["blank"], about["layers"]) == ("ForCTC", "3", "none")
    assert axes(file) == [["batch", "frames", 7]]
    waveforms = torch.randn(3, 1_777)
    (found,) = session(result.path).run(None, {"waveforms": waveforms.numpy()})
    with torch.no_grad():
        expected = AutoModelForCTC.from_pretrained(directory)(waveforms).logits
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4, rtol=1e-4)


@exports("onnx")
def test_hidden_states_beside_logits_and_int8_measured_on_both(tmp_path: Path) -> None:
    directory = with_head("ForSequenceClassification", tmp_path, "hubert", "large")
    result = export_encoder(directory, heads=True, layers="all", int8=True, force=True)
    assert result.path == directory / "model-int8.onnx"
    states = [f"hidden_state_{index:02d}" for index in range(4)]
    assert result.outputs == (*states, "last_hidden_state", "logits")
    errors = result.int8_errors
    assert errors is not None and tuple(errors.states) == (*states, "last_hidden_state")
    assert set(errors.judged) == {"hidden states", "logits"}
    assert 1e-5 < errors.head["logits"] < 0.5


def test_what_int8_is_refused_for() -> None:
    errors = Int8Errors(states={"a": 0.02, "b": 0.04}, head={"logits": 0.2, "embeddings": 0.01})
    assert errors.judged == {"hidden states": pytest.approx(0.03), "logits": 0.2, "embeddings": 0.01}
    with pytest.raises(SlimvoxError, match=r"int8 changes the logits by 20.0% .* more than 10.0%"):
        errors.check(0.1, force=False)
    with pytest.raises(SlimvoxError, match=r"the hidden states by 3.0%, the logits by 20.0%"):
        errors.check(0.025, force=False)
    errors.check(0.1, force=True)
    errors.check(0.2, force=False)
    broken = Int8Errors(states={}, head={"logits": float("nan")})
    assert broken.mean_of_states is None
    with pytest.raises(SlimvoxError, match="nan"):
        broken.check(0.1, force=False)


@pytest.mark.slow
@exports("torch-export")
def test_torch_export_with_a_head(tmp_path: Path) -> None:
    directory = with_head("ForCTC", tmp_path)
    result = export_encoder(directory, heads=True, format="torch-export")
    assert result.path == directory / "model.pt2"
    waveforms = torch.randn(3, 1_777)
    with torch.no_grad():
        (found,) = torch.export.load(str(result.path)).module()(waveforms)
        expected = AutoModelForCTC.from_pretrained(directory)(waveforms).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_fine_tuned_dense_model_keeps_its_head_too(tmp_path: Path) -> None:
    reference = models.model("hubert", head="ctc", vocab_size=9)
    reference.save_pretrained(tmp_path)
    waveforms = torch.randn(2, 2_345)
    with torch.no_grad():
        torch.testing.assert_close(
            load_with_head(tmp_path)(waveforms).logits, reference(waveforms).logits, atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("kind", ["slimvox", "transformers"])
@exports("onnx")
def test_a_directory_without_a_head_is_refused(kind: str, tmp_path: Path) -> None:
    directory = models.directory(tmp_path / "dense", "hubert")
    if kind == "slimvox":
        encoder = slimvox.load(directory)
        directory = tmp_path / "ours"
        write_slimvox_directory(encoder, directory, kept_indices={}, model_card="")
    before = sorted(directory.iterdir())
    message = "without a task head" if kind == "slimvox" else "there is no task head in it"
    with pytest.raises(SlimvoxError, match=message):
        export_encoder(directory, heads=True)
    with pytest.raises(SlimvoxError, match="nothing to export"):
        export_encoder(directory, layers="none")
    assert sorted(directory.iterdir()) == before


@exports("onnx")
def test_a_head_whose_weights_are_not_all_there_is_refused(tmp_path: Path) -> None:
    directory = with_head("ForCTC", tmp_path)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "vocab_size": 8}))
    with pytest.raises(
        SlimvoxError, match=r"lm_head.bias must be \(8,\), but is \(7,\) instead|lm_head.weight"
    ):
        export_encoder(directory, heads=True)


def test_making_it_exportable_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = load_with_head(with_head("ForCTC", tmp_path))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ExportableModel(model.slimvox, model, layers="none")
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(parameter.requires_grad for parameter in model.parameters())
