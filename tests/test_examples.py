"""The scripts in examples/ do what they say."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoModelForAudioClassification

import slimvox
import whisper_models
from missing_packages import exports
from slimvox.losses import unregister_loss
from slimvox.structures import unregister_structure
from tiny_runs import SETTINGS, make_run, make_speech, make_teacher

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
OVERRIDES = [f"{name}={value}" for name, value in SETTINGS.items()]


def example(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def run(name: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module = example(name)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    module.main()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher, speech, and a pruned encoder in runs/small."""
    folder = tmp_path_factory.mktemp("examples")
    teacher, speech = make_teacher(folder / "teacher"), make_speech(folder / "speech")
    make_run(folder / "runs" / "small", teacher, speech)
    return folder


def test_every_example_is_tested_and_listed() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    listed = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    for path in EXAMPLES:
        assert f'"{path.stem}"' in here and f"({path.name})" in listed
    assert len(EXAMPLES) == 6


@pytest.mark.slow
def test_prune_and_push(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pushed: list[str] = []
    monkeypatch.setattr(slimvox.SpeechEncoder, "push_to_hub", lambda self, name: pushed.append(name))
    arguments = [
        str(world / "teacher"),
        str(world / "speech"),
        "--out",
        str(tmp_path / "out"),
        "--keep",
        "50%",
    ]
    run("prune_and_push", [*arguments, "--set", *OVERRIDES, "--repository", "me/small"], monkeypatch)
    assert pushed == ["me/small"]
    encoder = slimvox.load(tmp_path / "out")
    dense = slimvox.load(world / "teacher")
    assert encoder.parameter_count <= 0.5 * dense.parameter_count
    assert f"{encoder.parameter_count:,} of {dense.parameter_count:,}" in capsys.readouterr().out


def test_custom_structure_and_loss(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(world / "teacher"), str(world / "speech"), "--out", str(tmp_path / "out")]
    try:
        run("custom_structure_and_loss", [*arguments, "--set", *OVERRIDES], monkeypatch)
    finally:
        unregister_structure("layer")
        unregister_loss("log_energy")
    assert "layers left" in capsys.readouterr().out
    log = (tmp_path / "out" / "run" / "log.jsonl").read_text(encoding="utf-8")
    assert "log_energy" in log and '"layers"' in log


def test_finetune_with_trainer(
    tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        str(world / "runs" / "small"),
        "--out",
        str(tmp_path / "tones"),
        "--clips",
        "64",
        "--epochs",
        "4",
    ]
    run("finetune_with_trainer", arguments, monkeypatch)
    found = re.search(r"accuracy on 64 new clips: (\d+)%", capsys.readouterr().out)
    assert found is not None and 0 <= int(found[1]) <= 100
    tuned = AutoModelForAudioClassification.from_pretrained(tmp_path / "tones")
    assert tuned(torch.zeros(1, 2_000)).logits.shape == (1, 2)
    before, after = slimvox.load(world / "runs" / "small"), tuned.slimvox
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


class LastFrames:
    """A session whose last hidden states are the waveform, a frame per 320 samples: nothing depends on context."""

    def get_modelmeta(self) -> SimpleNamespace:
        return SimpleNamespace(custom_metadata_map={"downsample_rate": "320", "shortest_samples": "400"})

    def run(self, names: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        waveforms = inputs["waveforms"]
        frames = (waveforms.shape[1] - 400) // 320 + 1
        return [np.stack([waveforms[:, 320 * t : 320 * t + 400] for t in range(frames)], axis=1)]


@pytest.mark.parametrize("samples", [399, 400, 719, 720, 16_000, 100_003])
@pytest.mark.parametrize(("chunk", "context"), [(0.5, 0.0), (0.5, 0.3), (2.0, 1.0), (60.0, 1.0)])
def test_a_stream_has_every_frame_once(samples: int, chunk: float, context: float) -> None:
    pytest.importorskip("onnxruntime")
    waveform = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    blocks = np.array_split(waveform, 7)
    stream = example("stream_features").stream_features
    chunks = list(stream(LastFrames(), blocks, chunk_seconds=chunk, context_seconds=context))
    joined = np.concatenate([np.zeros((0, 400), dtype=np.float32), *chunks])
    whole = LastFrames().run(None, {"waveforms": waveform[None]})[0][0] if samples >= 400 else joined[:0]
    assert np.array_equal(joined, whole)
    longest = round(chunk * 50)
    assert all(len(part) <= longest for part in chunks)


@pytest.mark.slow
@exports("onnx")
def test_stream_features(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slimvox.export_encoder(world / "runs" / "small", tmp_path / "encoder.onnx", layers="last")
    noise = 0.1 * np.random.default_rng(0).standard_normal(80_000)
    soundfile.write(tmp_path / "noise.wav", noise, 16_000)
    arguments = [str(tmp_path / "encoder.onnx"), str(tmp_path / "noise.wav"), "--chunk-seconds", "1"]
    run("stream_features", arguments, monkeypatch)
    frames = slimvox.load(world / "runs" / "small").anatomy.frames(80_000)
    assert f"{frames} frames in" in capsys.readouterr().out


@pytest.mark.slow
@exports("onnx")
def test_whisper_is_pruned_exported_and_transcribes(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whisper_models.recogniser(tmp_path / "dense")
    speech, out = world / "speech", tmp_path / "small"
    overrides = [*OVERRIDES, "data.pad_to_seconds=1", "target.seconds=1"]  # the longest input of this model
    run(
        "whisper", [str(tmp_path / "dense"), str(speech), "--out", str(out), "--set", *overrides], monkeypatch
    )
    lines = capsys.readouterr().out.splitlines()
    assert any(re.match(r"dense, [\d.]+ s: .", line) for line in lines)
    assert any(re.match(r"pruned, [\d.]+ s: .", line) for line in lines)
    slimvox.export(out, heads=True)
    recording = next(iter(sorted(speech.iterdir())))
    run("transcribe_with_onnx", [str(out), str(recording), "--most", "5", "--window", "1"], monkeypatch)
    assert capsys.readouterr().out.endswith("\n")
