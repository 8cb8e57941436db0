"""OpenVINO files of encoders as pruning leaves them; one export serves several tests."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import slimvox
from missing_packages import exports
from slimvox import ExportResult, SlimvoxError, export_encoder
from slimvox.evaluation.upstreams import load_upstream
from slimvox.exporters import export_format
from slimvox.exporters.calibration import Int8Speech
from slimvox.exporters.int8 import measured_errors
from slimvox.exporters.openvino_file import OpenVino
from slimvox.exporters.reference import Reference
from slimvox.exporters.signature import Signature
from slimvox.measure.benchmark import benchmark
from slimvox.measure.benchmark.contenders import Contender, backend_names, load_contender

openvino = pytest.importorskip("openvino")
pytestmark = exports("openvino")


@pytest.fixture(scope="module")
def exported(directory: Path) -> ExportResult:
    return export_encoder(directory, format="openvino", mask=True)


def test_two_files_and_nothing_else(directory: Path, exported: ExportResult) -> None:
    assert exported.path == directory / "encoder.xml"
    files = [directory / name for name in ("encoder.xml", "encoder.bin")]
    assert exported.bytes == sum(file.stat().st_size for file in files)
    assert 0 < exported.worst_difference < 1e-4
    assert not [path for path in directory.iterdir() if path.name.startswith((".", "tmp"))]
    assert str(Path(slimvox.__file__).parent) not in files[0].read_text()


def test_padded_batches_of_any_length_from_openvino_alone(directory: Path, exported: ExportResult) -> None:
    encoder = slimvox.load(directory)
    compiled = openvino.Core().compile_model(exported.path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    shortest = encoder.anatomy.receptive_field
    for batch, samples in ((1, shortest), (2, shortest + 7), (3, 1_777)):
        lengths = torch.tensor([samples, max(shortest, samples // 2), 0][:batch])
        mask = torch.arange(samples) < lengths.view(-1, 1)
        waveforms = torch.randn(batch, samples) * mask
        found = compiled([waveforms.numpy(), mask.numpy()])
        with torch.inference_mode():
            expected = encoder(waveforms, mask)
        speech = expected.frame_mask.numpy()
        np.testing.assert_array_equal(found[6], speech)
        for index, state in enumerate(expected.hidden_states):
            np.testing.assert_allclose(found[index][speech], state.numpy()[speech], atol=2e-4, rtol=1e-3)


def test_it_says_what_it_is_and_gives_features(
    directory: Path, exported: ExportResult, tmp_path: Path
) -> None:
    program = export_format("openvino").open(exported.path, threads=1)
    assert program.inputs == ["waveforms", "attention_mask"] and tuple(program.outputs) == exported.outputs
    assert program.metadata["slimvox_version"] == slimvox.__version__
    assert program.metadata["precision"] == "float32"
    ours, theirs = load_upstream(exported.path), load_upstream(directory)
    for name in ("frame_rate_hz", "layers", "width", "shortest", "parameters"):
        assert getattr(ours, name) == getattr(theirs, name)
    waveforms = torch.randn(2, 1_500)
    torch.testing.assert_close(ours(waveforms), theirs(waveforms), atol=2e-4, rtol=1e-3)
    # Other weights are another encoder, also where the graph is the same.
    for name in ("encoder.xml", "encoder.bin"):
        shutil.copy(directory / name, tmp_path / name)
    weights = np.fromfile(tmp_path / "encoder.bin", dtype=np.uint8)
    weights[-4:] ^= 1
    weights.tofile(tmp_path / "encoder.bin")
    assert load_upstream(tmp_path / "encoder.xml").fingerprint != ours.fingerprint


def test_int8_and_its_error(
    directory: Path, exported: ExportResult, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("encoder.xml", "encoder.bin"):
        shutil.copy(directory / name, tmp_path / name)
    file = tmp_path / "encoder.xml"
    reference = Reference(
        encoder=slimvox.load(directory), head=None, signature=Signature(layers="all", mask=True)
    )
    speech = Int8Speech((), reference)
    OpenVino().to_int8(file, speech.scales[:4])
    logging.getLogger("slimvox").warning("still heard")
    assert "still heard" in caplog.text, "NNCF is made quiet, and nothing else"
    nodes = openvino.Core().read_model(file).get_ops()
    assert "FakeQuantize" in {node.get_type_name() for node in nodes}
    # Its scales by channel, determined on one kind of speech, are wrong by far on others.
    assert not [node for node in nodes if "smooth_quant" in node.get_friendly_name()]
    errors = measured_errors(OpenVino().open(file), reference, speech.error, speech.error_source)
    assert any(error > 1e-5 for error in errors.states.values())
    assert max(errors.states.values()) < 0.1
    # It is evaluated like any encoder.
    waveforms = torch.randn(2, 1_500)
    found, expected = load_upstream(file)(waveforms), load_upstream(exported.path)(waveforms)
    assert 1e-5 < float((found - expected).norm() / expected.norm()) < 0.1


@pytest.mark.parametrize("backend", ["openvino", "openvino-bf16"])
def test_the_benchmark_runs_it_in_the_precision_of_the_backend(
    backend: str, directory: Path, exported: ExportResult
) -> None:
    if backend == "openvino-bf16" and not _has_bf16():
        pytest.skip("a processor without bfloat16")
    contender = Contender(
        model=str(directory), backend=backend, name="odd", file=exported.path, format=OpenVino()
    )
    waveforms = np.random.default_rng(0).normal(0, 0.1, (1, 1_500)).astype(np.float32)
    run: Any = load_contender(contender, threads=1).run
    found = run(waveforms, np.ones(waveforms.shape, dtype=bool))
    with torch.inference_mode():
        expected = slimvox.load(directory)(torch.from_numpy(waveforms)).hidden_states
    errors = [
        np.linalg.norm(ours - theirs.numpy()) / np.linalg.norm(theirs.numpy())
        for ours, theirs in zip(found, expected, strict=False)
    ]
    assert max(errors) < 1e-5 if backend == "openvino" else 1e-4 < max(errors) < 0.1


def _has_bf16() -> bool:
    try:
        OpenVino().check_bf16()
    except SlimvoxError:
        return False
    return True


def test_a_file_without_its_weights_is_one_sentence(directory: Path, tmp_path: Path) -> None:
    whole = export_encoder(directory, tmp_path / "whole.xml", format="openvino").path
    (tmp_path / "alone.xml").write_bytes(whole.read_bytes())
    with pytest.raises(SlimvoxError, match=r"OpenVINO cannot read .*alone\.xml: .*bin file cannot be found"):
        load_upstream(tmp_path / "alone.xml")


def test_bad_input_is_one_sentence(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SlimvoxError, match=r"must end in \.xml, but `out` is encoder\.ir"):
        export_encoder(directory, tmp_path / "encoder.ir", format="openvino")
    (tmp_path / "mine.bin").write_bytes(b"weights of something else")
    with pytest.raises(SlimvoxError, match=r"mine\.bin exists already"):
        export_encoder(directory, tmp_path / "mine.xml", format="openvino")
    (tmp_path / "broken.xml").write_text("not a model")
    with pytest.raises(SlimvoxError, match=r"OpenVINO cannot read .*broken\.xml"):
        load_upstream(tmp_path / "broken.xml")

    soundfile.write(tmp_path / "silence.wav", np.zeros(16_000, dtype=np.float32), 16_000)
    silence = [str(tmp_path / "silence.wav")]
    with pytest.raises(SlimvoxError, match="is not silent: give it speech"):
        export_encoder(directory, tmp_path / "q.xml", format="openvino", int8=True, calibration=silence)

    class Old:
        def get_property(self, device: str, name: str) -> list[str]:
            return ["FP32", "INT8"]

    assert {"openvino", "openvino-bf16", "openvino-int8"} < {*backend_names()}
    monkeypatch.setattr(openvino, "Core", Old)
    with pytest.raises(SlimvoxError, match="lacks the instructions"):
        benchmark([directory], backends=["openvino-bf16"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.xml", "mine.bin", "silence.wav"]
