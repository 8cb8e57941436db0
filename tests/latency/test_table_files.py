"""Latency tables as files: measured on one machine, read on another."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import slimvox
from measures import TABLE
from models import config, directory
from slimvox.checkpoint.transformers_config import anatomy_from_config
from slimvox.costs import BLOCK_KINDS, CostContext, cost_kind
from slimvox.measure.latency import (
    LatencyTable,
    measure_in_runtime,
    measure_in_torch,
    prepare,
    read_table,
    run,
)
from slimvox.measure.latency.file import FORMAT, write_table
from slimvox.measure.latency.prepare import table_path
from slimvox.structures.parts import LayerAnatomy

DENSE = anatomy_from_config(config("wavlm").to_dict(), "test", normalize_waveform=False)


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return directory(tmp_path / "teacher", "wavlm")


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    table = replace(TABLE, hardware="Abacus", dense=1e6, runtime="onnx-int8", threads=3)
    write_table(tmp_path / "new" / "table.json", table, DENSE)
    assert read_table(tmp_path / "new" / "table.json", DENSE) == table


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 1}, "measured by another version of slimvox"),
        ({"format": None}, "measured by another version of slimvox"),
        ({"dense": {}}, "is not a latency table"),
        ({"table": {"seconds": 1}}, "is not a latency table; `slimvox latency` writes one"),
        ({"table": None}, "is not a latency table"),
        ({"table": [1]}, "is not a latency table"),
        ({"format": FORMAT + 1, "table": {"new": 1}}, "measured by another version of slimvox"),
    ],
)
def test_what_is_no_table_for_the_encoder_is_one_sentence(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "table.json"
    write_table(path, TABLE, DENSE)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(slimvox.SlimvoxError, match=message) as caught:
        read_table(path, DENSE)
    assert str(caught.value).startswith(str(path))


def test_a_table_of_an_unknown_runtime_or_without_a_block_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    write_table(path, replace(TABLE, runtime="abacus"), DENSE)
    with pytest.raises(slimvox.SlimvoxError, match="for the runtime abacus, which"):
        read_table(path, DENSE)
    for kind, title in BLOCK_KINDS.items():
        others = {name: each for name, each in TABLE.nanoseconds.items() if name != kind}
        write_table(path, replace(TABLE, nanoseconds=others), DENSE)
        with pytest.raises(slimvox.SlimvoxError, match=f"has no times of {title}"):
            read_table(path, DENSE)


def test_a_table_does_not_depend_on_what_takes_no_time(tmp_path: Path) -> None:
    """A fine-tuned model may differ in how its waveforms are normalised."""
    write_table(tmp_path / "table.json", TABLE, DENSE)
    assert read_table(tmp_path / "table.json", replace(DENSE, normalize_waveform=True)) == TABLE


def test_a_table_for_another_encoder_is_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "table.json", TABLE, DENSE)
    with pytest.raises(slimvox.SlimvoxError, match="another shape"):
        read_table(tmp_path / "table.json", replace(DENSE, layers=DENSE.layers[:1]))


def test_a_model_is_measured_with_the_threads_asked_for(teacher: Path, tmp_path: Path) -> None:
    before, said = torch.get_num_threads(), list[str]()
    table = slimvox.measure_latency(
        teacher, tmp_path / "t.json", seconds=0.5, threads=before + 1, on_progress=said.append
    )
    assert torch.get_num_threads() == before and table.threads == before + 1
    assert said == ["measuring 0.5 s of audio in torch"]
    dense = slimvox.load(teacher).dense_anatomy
    assert table.seconds == 0.5 and table.device == "cpu" and table.hardware and table.of_dense(dense) > 0
    assert read_table(tmp_path / "t.json", dense) == table
    assert f"{before + 1} threads of {table.hardware}" in table.place


def test_a_pruned_model_is_measured_as_its_dense_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []
    monkeypatch.setattr(prepare, "measure_in_torch", lambda dense, **_: measured.append(dense) or TABLE)
    gone = LayerAnatomy(attention=False, heads=(), feed_forward=False, intermediate=0)
    pruned = slimvox.SpeechEncoder(replace(DENSE, layers=(gone, *DENSE.layers[1:])), DENSE)
    pruned.save_pretrained(tmp_path / "pruned")
    slimvox.measure_latency(tmp_path / "pruned", seconds=0.5)
    slimvox.measure_latency(pruned, seconds=0.5)
    assert measured == [DENSE, DENSE]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runtime": "abacus"}, "`runtime` must be one of torch, torch-bf16, .* but is 'abacus' instead"),
        ({"seconds": 0.0}, "`seconds` must be"),
        ({"threads": 0}, "`threads` must be between 1 and"),
        ({"device": "cuda"}, "`device` is cuda, but this machine"),
        ({"out": "."}, "`out` must be a file"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(
    options: dict[str, Any], message: str, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(slimvox.SlimvoxError, match=message):
        slimvox.measure_latency(teacher, **options)


def test_a_clip_beyond_the_window_of_the_model_is_refused() -> None:
    window = replace(DENSE, position_table=50, position_kernel=0)
    assert window.most_samples is not None
    longest = window.most_samples / 16_000
    for measure in (measure_in_torch, partial(measure_in_runtime, runtime="torch-bf16")):
        with pytest.raises(slimvox.SlimvoxError, match=f"and at most {longest:g} s"):
            measure(window, seconds=longest + 0.1)


def test_an_exported_file_is_not_measured_on_a_gpu(teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(slimvox.SlimvoxError, match="`runtime` torch-bf16 is measured on the CPU only"):
        slimvox.measure_latency(teacher, runtime="torch-bf16", device="cuda")


def test_a_run_on_a_gpu_measures_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most encoders that are pruned on a GPU are used on a CPU."""
    monkeypatch.setenv("SLIMVOX_CACHE", str(tmp_path))
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(prepare, "measure_in_torch", lambda _, **options: asked.append(options) or TABLE)
    context = CostContext(
        dense=DENSE, seconds=1.0, device=torch.device("cuda"), on_progress=lambda _: None, runtime="torch"
    )
    assert cost_kind("latency").prepare(context) == TABLE
    assert asked == [{"seconds": 1.0, "device": torch.device("cpu")}]
    assert table_path(context) == table_path(replace(context, device=torch.device("cpu")))
    assert table_path(context).is_file()


def test_the_device_the_threads_and_the_runtime_are_those_asked_for(
    teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []

    def in_torch(_: Any, *, seconds: float, device: torch.device) -> LatencyTable:
        asked.append((seconds, device.type, torch.get_num_threads()))
        return TABLE

    def in_runtime(_: Any, runtime: str, *, seconds: float, on_progress: Any) -> LatencyTable:
        asked.append((runtime, seconds, torch.get_num_threads()))
        return TABLE

    monkeypatch.setattr(prepare, "measure_in_torch", in_torch)
    monkeypatch.setattr(prepare, "measure_in_runtime", in_runtime)
    monkeypatch.setattr(run, "find_device", torch.device)
    slimvox.measure_latency(teacher, seconds=0.5, threads=2, device="cuda")
    slimvox.measure_latency(teacher, seconds=2.0, threads=1, runtime="torch-bf16")
    assert asked == [(0.5, "cuda", 2), ("torch-bf16", 2.0, 1)]


def test_a_table_of_the_format_before_can_be_given(tmp_path: Path) -> None:
    write_table(tmp_path / "t.json", TABLE, DENSE)
    content = json.loads((tmp_path / "t.json").read_text())
    (tmp_path / "t.json").write_text(json.dumps(content | {"format": 2}))
    assert read_table(tmp_path / "t.json", DENSE) == TABLE
