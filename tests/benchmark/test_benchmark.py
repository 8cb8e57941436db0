"""The benchmark: what it measures and says, not how long anything takes."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
from pathlib import Path

import pytest
import torch

import slimvox
from missing_packages import exports, hide_packages
from slimvox.checkpoint.directory import write_slimvox_directory
from slimvox.checkpoint.resolve import find_anatomies
from slimvox.checkpoint.transformers_config import anatomy_from_config, transformers_config
from slimvox.cli.main import run as command
from slimvox.costs import BLOCK_KINDS, macs, parameters
from slimvox.encoder import SpeechEncoder
from slimvox.measure.benchmark import Contender, benchmark
from slimvox.measure.benchmark.blocks import BlockTimer, block_costs, block_modules
from slimvox.measure.benchmark.contenders import load_contender
from slimvox.measure.benchmark.run import contenders_of
from slimvox.measure.benchmark.worker import Worker
from slimvox.measure.runtime import encoder_milliseconds
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.structures.parts import ConvAnatomy, dense_layer
from slimvox.util.errors import SlimvoxError
from small_encoders import wavlm


def anatomy(family: str = "wavlm") -> EncoderAnatomy:
    wide = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))
    buckets = (8, 16) if family == "wavlm" else (0, 0)
    return wavlm(
        family=family,
        convolutions=tuple(ConvAnatomy(channels=8, kernel=kernel, stride=stride) for kernel, stride in wide),
        width=16,
        position_kernel=4,
        attention_heads=2,
        layers=(dense_layer(heads=2, head_width=8, intermediate=12),) * 2,
        position_buckets=buckets[0],
        position_max_distance=buckets[1],
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    encoder = SpeechEncoder(anatomy())
    write_slimvox_directory(encoder, tmp_path / "tiny", kept_indices={}, model_card="tiny")
    return tmp_path / "tiny"


@pytest.mark.parametrize("family", ["wavlm", "hubert", "wav2vec2"])
def test_a_configuration_made_from_an_anatomy_describes_it(family: str) -> None:
    before = anatomy(family)
    config = transformers_config(before).to_dict()
    assert anatomy_from_config(config, "here", normalize_waveform=False) == before


def test_a_pruned_encoder_has_no_configuration() -> None:
    smaller = dataclasses.replace(dense_layer(heads=2, head_width=8, intermediate=12), intermediate=5)
    dense = anatomy()
    with pytest.raises(SlimvoxError, match="pruned"):
        transformers_config(dataclasses.replace(dense, layers=(dense.layers[0], smaller)))


def test_everything_is_measured_as_often_as_asked(directory: Path) -> None:
    result = benchmark([directory], seconds=[0.5, 1.0], batch=[1, 2], backends=["torch"], threads=1, runs=3)
    assert [contender.label for contender in result.contenders] == [
        "tiny dense, transformers",
        "tiny, torch",
    ]
    assert len(result.measurements) == 2 * 4
    for measured in result.measurements:
        assert len(measured.milliseconds) == 3 and min(measured.milliseconds) > 0
    report = result.contenders[1]
    assert report.parameters == parameters(anatomy())
    assert report.macs_10s == macs(anatomy(), 10.0)
    assert report.peak_memory_bytes > 50 << 20
    assert report.blocks is not None
    assert sum(block["parameters"] for block in report.blocks.values()) == report.parameters
    json.dumps(result.to_dict())


def test_blocks_of_both_implementations_have_times() -> None:
    from transformers import AutoModel

    ours = SpeechEncoder(anatomy()).eval()
    theirs = AutoModel.from_config(transformers_config(anatomy())).eval()
    for module in (ours, theirs):
        with torch.no_grad(), BlockTimer(block_modules(module)) as timer:
            module(torch.randn(1, 8000))
        assert {block.kind for block in timer.nanoseconds} == set(BLOCK_KINDS)
        assert {block.layer for block in timer.nanoseconds} == {None, 0, 1}
        assert min(timer.nanoseconds.values()) > 0
        assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_costs_of_the_blocks_add_up() -> None:
    costs = block_costs(anatomy(), 3.0)
    assert sum(cost[0] for cost in costs.values()) == parameters(anatomy())
    assert sum(cost[1] for cost in costs.values()) == macs(anatomy(), 3.0)


def test_the_transformers_contender_is_the_model_itself(tmp_path: Path) -> None:
    from transformers import AutoModel

    model = AutoModel.from_config(transformers_config(anatomy())).eval()
    model.save_pretrained(tmp_path)
    waveforms = torch.randn(1, 8000)
    expected = model(waveforms, output_hidden_states=True).hidden_states
    for backend in ("transformers", "torch"):
        loaded = load_contender(Contender(model=str(tmp_path), backend=backend, name="tiny"), threads=1)  # type: ignore[arg-type]
        states = loaded.run(waveforms.numpy()).hidden_states  # type: ignore[attr-defined]
        for ours, theirs in zip(states, expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_the_process_of_a_contender_ends_by_itself(directory: Path) -> None:
    worker = Worker(Contender(model=str(directory), backend="torch", name="tiny"), threads=1)
    (process,) = multiprocessing.active_children()
    worker.close()
    assert process.exitcode == 0


def test_dense_rows_beside_those_of_a_pruned_encoder(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    small = dataclasses.replace(anatomy(), layers=(dense_layer(heads=1, head_width=8, intermediate=5),) * 2)
    write_slimvox_directory(
        SpeechEncoder(small, anatomy()), tmp_path / "small", kept_indices={}, model_card=""
    )
    options = ["--seconds", "0.2", "--threads", "1,2", "--runs", "1", "--backends", "torch,transformers"]
    files = ["--out", str(tmp_path / "speed.json"), "--plot", str(tmp_path / "speed.svg")]
    assert command(["benchmark", str(tmp_path / "small"), *options, *files]) == 0
    captured = capfd.readouterr()
    assert "1 x 0.2 s, 1 thread " in captured.out and "1 x 0.2 s, 2 threads" in captured.out
    assert "model shards" not in captured.err
    data = json.loads((tmp_path / "speed.json").read_text())
    labels = ["small dense, transformers", "small dense, torch", "small, torch"]
    assert [each["label"] for each in data["contenders"]] == labels
    assert [each["dense"] for each in data["contenders"]] == [labels[0], labels[1], labels[1]]
    assert [each["parameters"] for each in data["contenders"]] == [parameters(anatomy())] * 2 + [
        parameters(small)
    ]
    assert [(each["label"], each["threads"]) for each in data["measurements"]] == [
        (label, threads) for threads in (1, 2) for label in labels
    ]
    for each in data["measurements"][2::3]:
        assert each["by_runtime"] * each["by_pruning"] == pytest.approx(each["speedup"])
    for each in data["contenders"]:
        assert min(each["import_seconds"], each["load_seconds"], each["first_call_seconds"]) > 0
        assert each["file_bytes"] > 4 * each["parameters"]
    assert (tmp_path / "speed.svg").read_text().count("small dense, torch") >= 1
    alone = contenders_of([str(tmp_path / "small")], None, ["torch"], tmp_path, with_dense=False)
    assert [(each.label, dense) for each, dense in alone] == [(labels[0], labels[0]), (labels[2], None)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seconds", "ten"], "numbers separated by commas"),
        (["--seconds", "0.01"], "`--seconds[0]` must be at least 0.1"),
        (["--backends", "tensorflow"], "`--backends` must be some of torch"),
        (["--against", "no/such/dir/here"], "no directory"),
        (["--threads", "0"], "`--threads[0]` must be between 1 and 4096"),
        (["--seconds", "nan"], "`--seconds[0]` must be a finite number"),
        (["--seconds", "inf"], "`--seconds[0]` must be a finite number"),
        (["--batch", "0"], "at least 1"),
        (["--out", "/dev/null/speed.json"], "cannot be written"),
        (["--out", "."], "must be a file, but . is a directory"),
        (["--plot", "speed.gif"], "`--plot` must end in .png, .svg, .pdf, but is speed.gif"),
        (["--device", "cuda"], "`--device` is cuda, but this machine"),
    ],
)
def test_bad_input_is_one_sentence(
    directory: Path,
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command(["benchmark", str(directory), *arguments]) == 2
    errors = capfd.readouterr().err
    assert said in errors and "Traceback" not in errors


def test_a_benchmark_of_nothing_is_refused() -> None:
    with pytest.raises(SlimvoxError, match="must be a model"):
        benchmark([])
    with pytest.raises(SlimvoxError, match="must be a model and a backend"):
        benchmark(["embedded"], backends=[])


def test_onnx_is_asked_for_before_anything_is_measured(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    hide_packages(monkeypatch, "onnxruntime")
    assert command(["benchmark", str(directory), "--backends", "torch,onnx"]) == 2
    assert 'pip install "slimvox[onnx]"' in " ".join(capfd.readouterr().err.split())


@exports("onnx")
def test_exported_files_are_not_measured_on_a_gpu(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(SlimvoxError, match="has onnx, which runs on the CPU"):
        benchmark([directory], backends=["torch", "onnx"], device="cuda")


@exports("onnx")
def test_encoders_in_memory_are_timed_in_a_runtime() -> None:
    encoders = {"one": SpeechEncoder(anatomy()), "other": SpeechEncoder(anatomy())}
    for backend in ("torch-bf16", "onnx"):
        found = encoder_milliseconds(encoders, backend=backend, threads=1, seconds=0.2, rounds=2)
        assert [(name, len(times)) for name, times in found.items()] == [("one", 2), ("other", 2)]
        assert all(time > 0 for times in found.values() for time in times)
    assert {weight.dtype for encoder in encoders.values() for weight in encoder.parameters()} == {
        torch.float32
    }
    with pytest.raises(SlimvoxError, match="dense models only"):
        encoder_milliseconds(encoders, backend="transformers")


def test_what_a_model_is_made_of_is_known_without_its_weights(directory: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    encoder = slimvox.load(directory)
    (directory / "model.safetensors").unlink()
    assert find_anatomies(directory) == (encoder.anatomy, encoder.dense_anatomy)
    AutoModel.from_config(transformers_config(anatomy())).save_pretrained(tmp_path / "dense")
    assert find_anatomies(tmp_path / "dense") == (anatomy(), anatomy())


def test_the_command_prints_tables_and_json(directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--seconds", "0.5", "--threads", "1", "--runs", "1"]
    assert command(["benchmark", str(directory), *options]) == 0
    text = capfd.readouterr().out
    assert "RTF" in text and "feed forward" in text and "memory" in text
    file = directory.parent / "speed.json"
    assert command(["benchmark", str(directory), *options, "--json", "--out", str(file)]) == 0
    data = json.loads(capfd.readouterr().out)
    assert data == json.loads(file.read_text())
    assert data["measurements"][1]["speedup"] > 0


def test_an_encoder_in_memory_is_measured(directory: Path) -> None:
    encoder = slimvox.load(directory)
    result = slimvox.benchmark(encoder, against=directory, seconds=[0.1], threads=1, runs=1)
    assert [each.label for each in result.contenders] == ["tiny, torch", "SpeechEncoder, torch"]
    assert {each.parameters for each in result.contenders} == {encoder.parameter_count}
