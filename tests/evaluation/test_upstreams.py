from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

import models
import whisper_models
from missing_packages import exports
from slimvox.evaluation.upstreams import load_upstream
from slimvox.util.errors import SlimvoxError


def test_the_filter_bank_has_one_state_of_240_dimensions() -> None:
    upstream = load_upstream("fbank")
    assert upstream(torch.randn(2, 1600)).shape == (2, 8, 1, 240)
    assert upstream.frame_rate_hz == 100


def test_random_weights_take_the_shape_of_a_model_and_nothing_else(tmp_path: Path) -> None:
    directory = models.directory(tmp_path / "model", "wavlm")
    model, random = load_upstream(directory), load_upstream(f"random:{directory}")
    assert random.parameters == model.parameters and random.layers == model.layers == 4
    assert random.fingerprint != model.fingerprint
    assert random.fingerprint == load_upstream(f"random:{directory}").fingerprint
    assert random.fingerprint != load_upstream(f"random:{directory}", seed=1).fingerprint
    states = random(torch.randn(1, 4000))
    assert torch.isfinite(states).all() and states.std() > 0.01


def test_the_frame_rate_is_that_of_the_encoder(tmp_path: Path) -> None:
    directory = models.directory(tmp_path / "model", "hubert", conv_stride=(5, 2, 4))
    upstream = load_upstream(directory)
    assert upstream.frame_rate_hz == 400
    assert load_upstream(models.directory(tmp_path / "other", "hubert")).frame_rate_hz == 800


@pytest.mark.parametrize("family", [*models.FAMILIES, "whisper"])
def test_the_number_of_frames_is_known_without_encoding(family: str, tmp_path: Path) -> None:
    make = whisper_models.directory if family == "whisper" else partial(models.directory, family=family)
    upstream = load_upstream(make(tmp_path))
    for samples in (upstream.shortest, upstream.shortest + 1, 2000, 3999, 4000, 4001):
        assert upstream.frames(samples) == upstream(torch.randn(1, samples)).shape[1]
    assert family == "whisper" or upstream.frames(upstream.shortest - 1) == 0
    baseline = load_upstream("fbank")
    for samples in (400, 559, 560, 4001):
        assert baseline.frames(samples) == baseline(torch.randn(1, samples)).shape[1]


def test_random_alone_asks_for_a_shape() -> None:
    with pytest.raises(SlimvoxError, match="random:embedded"):
        load_upstream("random")


@exports("onnx")
def test_an_exported_file_is_an_upstream_too(tmp_path: Path) -> None:
    from slimvox import export_encoder

    directory = models.directory(tmp_path / "model", "wavlm", num_hidden_layers=1)
    file = export_encoder(directory, mask=True, int8=True, force=True).path
    torch_upstream, exported = load_upstream(directory), load_upstream(file)
    for name in ("frame_rate_hz", "layers", "width", "shortest", "parameters"):
        assert getattr(exported, name) == getattr(torch_upstream, name)
    assert exported.fingerprint != torch_upstream.fingerprint
    for count in (399, 4000, 4001):
        assert exported.frames(count) == torch_upstream.frames(count)
    waveforms = torch.randn(3, 4000)
    states, expected = exported(waveforms), torch_upstream(waveforms)
    assert states.shape == expected.shape
    error = (states - expected).square().mean() / expected.var()
    assert 0 < float(error) < 0.05
    # The scales of int8 are those of the clip alone.
    torch.testing.assert_close(exported(waveforms[1:2]), states[1:2])


def test_a_file_that_is_no_encoder_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    with pytest.raises(SlimvoxError, match="there is no file"):
        load_upstream(tmp_path / "none.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(SlimvoxError, match="onnxruntime cannot read"):
        load_upstream(tmp_path / "broken.onnx")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value], [result])
    model = onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 20)])
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(SlimvoxError, match="returns no hidden states"):
        load_upstream(tmp_path / "other.onnx")
