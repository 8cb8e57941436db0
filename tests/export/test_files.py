"""Exported files, of every family and layout, as other programs see them."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel

import models
import slimvox
from missing_packages import exports
from slimvox import ExportResult, SlimvoxError, SpeechEncoder, export_encoder
from slimvox.exporters import quantise as quantisation
from slimvox.exporters.onnx_file import Onnx
from slimvox.exporters.reference import Reference

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = exports("onnx")


@pytest.fixture(scope="module")
def wavlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.directory(tmp_path_factory.mktemp("wavlm"), "wavlm", num_hidden_layers=2)


@pytest.fixture(scope="module")
def plain(wavlm: Path) -> ExportResult:
    return export_encoder(wavlm)


@pytest.fixture(scope="module")
def masked(wavlm: Path) -> ExportResult:
    return export_encoder(wavlm, wavlm / "masked.onnx", mask=True)


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def shortest(encoder: SpeechEncoder) -> int:
    return encoder.anatomy.receptive_field


def test_by_default_all_hidden_states_in_the_models_directory(wavlm: Path, plain: ExportResult) -> None:
    assert plain.path == wavlm / "encoder.onnx"
    assert plain.bytes == plain.path.stat().st_size
    assert plain.inputs == ("waveforms",)
    assert plain.outputs == tuple(f"hidden_state_{index:02d}" for index in range(3))
    assert 0 < plain.worst_difference < 1e-4
    assert plain.int8_errors is None and plain.head_left_out is None
    assert not [path for path in wavlm.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("longer", [0, 1, 7, 640, 4_001])
def test_any_batch_and_length(wavlm: Path, plain: ExportResult, batch: int, longer: int) -> None:
    encoder = slimvox.load(wavlm)
    waveforms = torch.randn(batch, shortest(encoder) + longer)
    found = session(plain.path).run(None, {"waveforms": waveforms.numpy()})
    with torch.no_grad():
        expected = encoder(waveforms).hidden_states
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4, rtol=1e-4)


def test_mask(wavlm: Path, masked: ExportResult) -> None:
    assert masked.inputs == ("waveforms", "attention_mask")
    assert masked.outputs[-1] == "frame_mask"
    encoder = slimvox.load(wavlm)
    lengths = torch.tensor([2_000, 777, shortest(encoder), shortest(encoder) - 1, 9, 1, 0])
    mask = torch.arange(2_000) < lengths[:, None]
    waveforms = torch.randn(len(lengths), 2_000) * mask
    given = {"waveforms": waveforms.numpy(), "attention_mask": mask.numpy()}
    *states, frame_mask = session(masked.path).run(None, given)
    with torch.no_grad():
        expected = encoder(waveforms, mask)
    assert frame_mask.dtype == bool
    np.testing.assert_array_equal(frame_mask, expected.frame_mask.numpy())
    assert frame_mask.sum(1).tolist()[2:] == [1, 0, 0, 0, 0]
    for ours, theirs in zip(states, expected.hidden_states, strict=True):
        assert np.isfinite(ours).all()
        np.testing.assert_allclose(ours[frame_mask], theirs.numpy()[frame_mask], atol=1e-4, rtol=1e-4)


def test_audio_too_short_for_a_frame_has_none(wavlm: Path, plain: ExportResult, masked: ExportResult) -> None:
    one = shortest(slimvox.load(wavlm))
    for samples in (one - 1, one // 2, 10):
        waveforms = np.ones((2, samples), dtype=np.float32)
        states = session(plain.path).run(None, {"waveforms": waveforms})
        assert {state.shape for state in states} == {(2, 0, 32)}
        given = {"waveforms": waveforms, "attention_mask": waveforms > 0}
        assert session(masked.path).run(None, given)[-1].shape == (2, 0)


@pytest.mark.slow
def test_last_hidden_state_of_a_pre_norm_model_is_normed(tmp_path: Path) -> None:
    directory = models.directory(tmp_path / "model", "hubert", "large")
    result = export_encoder(directory, tmp_path / "encoder.onnx", layers="last")
    assert result.outputs == ("last_hidden_state",)
    waveforms = torch.randn(2, 1_000)
    (found,) = session(result.path).run(None, {"waveforms": waveforms.numpy()})
    with torch.no_grad():
        expected = slimvox.load(directory)(waveforms).last_hidden_state
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4, rtol=1e-4)


def test_one_self_contained_file_that_says_what_it_is(wavlm: Path, plain: ExportResult) -> None:
    model = onnx.load(plain.path, load_external_data=False)
    onnx.checker.check_model(model)
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert about["sample_rate_hz"] == "16000"
    assert about["downsample_rate"] == str(slimvox.load(wavlm).anatomy.hop)
    assert about["slimvox_version"] == slimvox.__version__
    assert about["normalize_waveform"] == "false"
    assert about["precision"] == "float32"
    assert about["teacher"] == wavlm.name
    assert model.opset_import[0].version == 20
    shapes = [
        [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (model.graph.input[0], model.graph.output[0])
    ]
    assert shapes == [["batch", "samples"], ["batch", "frames", 32]]
    # Neither where it was made nor by whom.
    assert str(Path(slimvox.__file__).parent).encode() not in plain.path.read_bytes()
    assert not plain.path.with_name("encoder.onnx.data").exists()


@pytest.mark.slow
def test_normalisation_is_inside(tmp_path: Path) -> None:
    directory = models.directory(tmp_path / "model", "wav2vec2", "large")
    (directory / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True}))
    assert slimvox.load(directory).anatomy.normalize_waveform
    result = export_encoder(directory, tmp_path / "encoder.onnx", layers="last")
    waveforms = np.random.default_rng(0).standard_normal((1, 2_000)).astype(np.float32)
    run = session(result.path).run
    (soft,) = run(None, {"waveforms": waveforms})
    (loud,) = run(None, {"waveforms": 7 * waveforms + 3})
    np.testing.assert_allclose(soft, loud, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_older_opset(wavlm: Path, tmp_path: Path) -> None:
    result = export_encoder(wavlm, tmp_path / "old.onnx", opset=18, layers="last")
    assert onnx.load(result.path).opset_import[0].version == 18


def test_onnxruntime_alone(plain: ExportResult, tmp_path: Path) -> None:
    script = f"""
        import sys

        class Blocked:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in ("torch", "transformers", "slimvox"):
                    raise ImportError(name)

        sys.meta_path.insert(0, Blocked())

        import numpy as np
        import onnxruntime

        session = onnxruntime.InferenceSession({str(plain.path)!r})
        waveforms = np.zeros((2, 16_000), dtype=np.float32)
        states = session.run(None, {{"waveforms": waveforms}})
        print(len(states), states[0].shape)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout.startswith("3 (2, ")


def test_int8_is_smaller_and_its_error_is_measured(wavlm: Path, tmp_path: Path, plain: ExportResult) -> None:
    result = export_encoder(wavlm, tmp_path / "int8.onnx", int8=True)
    assert result.bytes < 0.8 * plain.bytes
    assert result.int8_errors is not None and not result.int8_errors.head
    errors = result.int8_errors.states
    assert tuple(errors) == result.outputs
    assert result.int8_errors.judged == {"hidden states": pytest.approx(np.mean([*errors.values()]))}
    assert min(errors.values()) > 1e-4 and max(errors.values()) < 0.1
    model = onnx.load(result.path)
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert about["precision"] == "int8"
    names = [node.input[0] for node in model.graph.node if node.op_type == "MatMulInteger"]
    assert len(names) == 1 + 4 * 2, "the projection, and four products in each of two layers"
    # The error that was measured is that of the file.
    from slimvox.audio import read_audio
    from slimvox.embedded import audio_files

    clip = read_audio(audio_files("test")[0], seconds=2)[None]
    with torch.no_grad():
        expected = slimvox.load(wavlm)(torch.from_numpy(clip)).hidden_states[-1].numpy()
    found = session(result.path).run(None, {"waveforms": clip})[-1]
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert 0.3 * errors["hidden_state_02"] < error < 3 * errors["hidden_state_02"]


@pytest.mark.slow
def test_too_large_an_error_of_int8_is_refused_unless_forced(wavlm: Path, tmp_path: Path) -> None:
    target = tmp_path / "int8.onnx"
    with pytest.raises(SlimvoxError, match="mean relative error"):
        export_encoder(wavlm, target, int8=True, max_error=1e-6)
    assert not list(tmp_path.iterdir())
    assert export_encoder(wavlm, target, int8=True, max_error=1e-6, force=True).path.is_file()


def test_weights_worked_out_on_loading_are_stored_as_int8(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    transform, taps, front, layer = (random.standard_normal((32, 32)).astype(np.float32) for _ in range(4))
    shares = random.random(32).astype(np.float32)
    names = {
        "transform": transform,
        "taps": taps,
        "encoder.feature_extractor.layers.1.weight": front,
        "layer": layer,
        "shares": shares,
    }
    float32 = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node(
                "MatMul", ["x", "encoder.feature_extractor.layers.1.weight"], ["a"], "front"
            ),
            onnx.helper.make_node("MatMul", ["transform", "taps"], ["weight"], "at_load"),
            onnx.helper.make_node("MatMul", ["a", "weight"], ["b"], "spectral"),
            onnx.helper.make_node("MatMul", ["b", "layer"], ["c"], "product"),
            onnx.helper.make_node("MatMul", ["c", "shares"], ["y"], "weighted_sum"),
        ],
        "graph",
        [onnx.helper.make_tensor_value_info("x", float32, ["batch", 32])],
        [onnx.helper.make_tensor_value_info("y", float32, ["batch"])],
        [onnx.numpy_helper.from_array(value, name) for name, value in names.items()],
    )
    opset = onnx.helper.make_opsetid("", 20)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10), tmp_path / "float32.onnx")
    quantisation.quantise(tmp_path / "float32.onnx", tmp_path / "int8.onnx")
    graph = onnx.load(tmp_path / "int8.onnx").graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    assert types["taps_int8"] == onnx.TensorProto.INT8 and "taps" not in types
    assert types["transform"] == types["encoder.feature_extractor.layers.1.weight"] == float32
    assert [node.name for node in graph.node if node.op_type == "MatMulInteger"] == ["product_quant"]
    x = random.standard_normal((5, 32)).astype(np.float32)
    expected = x @ front @ (transform @ taps) @ layer @ shares
    (found,) = session(tmp_path / "int8.onnx").run(None, {"x": x})
    assert 1e-4 < np.linalg.norm(found - expected) / np.linalg.norm(expected) < 0.05


@pytest.fixture
def written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of an export, which takes seconds: a file, and a program that is off by a hundredth."""

    written: list[Reference] = []

    def write(self: Onnx, reference: Reference, path: Path, **_: Any) -> None:
        path.write_text("a new one")
        written.append(reference)

    def opened(self: Onnx, path: Path) -> Any:
        return lambda waveforms: [1.01 * state for state in written[0](waveforms, None).values()]

    monkeypatch.setattr(Onnx, "write", write)
    monkeypatch.setattr(Onnx, "open", opened)


@pytest.mark.usefixtures("written_at_once")
def test_a_wrong_file_is_removed_and_the_old_one_kept(wavlm: Path, tmp_path: Path) -> None:
    target = tmp_path / "encoder.onnx"
    target.write_text("an older one")
    with pytest.raises(SlimvoxError, match="differs from torch"):
        export_encoder(wavlm, target, force=True)
    assert target.read_text() == "an older one"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.usefixtures("written_at_once")
def test_interrupted_leaves_nothing(wavlm: Path, tmp_path: Path) -> None:
    def interrupt(message: str) -> None:
        if "comparing" in message:
            assert list(tmp_path.iterdir())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_encoder(wavlm, tmp_path / "encoder.onnx", report=interrupt)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            RuntimeError("Could not guard on Eq(u1, 1)\npages more"),
            r"RuntimeError: .*Eq\(u1, 1\)\); nothing was",
        ),
        (OSError(28, "No space left on device"), r"encoder.onnx cannot be written: No space left on device$"),
    ],
)
def test_whatever_stops_an_export_is_one_sentence(
    error: Exception, message: str, wavlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(Onnx, "write", fail)
    with pytest.raises(SlimvoxError, match=message) as raised:
        export_encoder(wavlm, tmp_path / "encoder.onnx")
    assert "\n" not in str(raised.value) and raised.value.__cause__ is error
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_without_torchs_option_for_sizes_of_one_onnx_still_has_them(
    wavlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slimvox.exporters.trace.SIZES_OPTIONS", "torch.no_such_module")
    assert export_encoder(wavlm, tmp_path / "encoder.onnx").compared[0][0] == 1
    with pytest.raises(SlimvoxError, match="cannot export this encoder as torch-export"):
        export_encoder(wavlm, tmp_path / "encoder.pt2", format="torch-export")


def test_models_in_memory_are_exported(wavlm: Path, plain: ExportResult, tmp_path: Path) -> None:
    model = AutoModel.from_pretrained(wavlm)
    with pytest.raises(SlimvoxError, match="`out` must be given"):
        slimvox.export(model)
    result = slimvox.export(model, tmp_path / "model.onnx")
    waveforms = np.random.default_rng(0).standard_normal((2, 900)).astype(np.float32)
    first, second = (session(each.path).run(None, {"waveforms": waveforms}) for each in (plain, result))
    assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(first, second, strict=True))


@exports("onnx")
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "encoder.pt2", "encoder"])
def test_a_file_ends_as_its_format(directory: Path, name: str) -> None:
    """`--force` does not replace the model by its own export."""
    before = {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}
    with pytest.raises(SlimvoxError, match=rf"format onnx must end in \.onnx, but `out` is {name} instead"):
        export_encoder(directory, directory / name, force=True)
    assert before == {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}
