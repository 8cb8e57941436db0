"""Contenders of the benchmark: their names, and what is loaded for each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

import slimvox
import whisper_models
from slimvox.encoder import SpeechEncoder
from slimvox.measure.benchmark import Contender
from slimvox.measure.benchmark.blocks import BlockTimer, block_modules
from slimvox.measure.benchmark.contenders import load_contender, load_module, noise, short_names
from slimvox.measure.benchmark.run import _file_bytes
from slimvox.structures import Block
from small_encoders import wavlm
from whisper_models import SAMPLES


def test_two_models_of_one_name_are_told_apart() -> None:
    assert short_names(["a/small", "b/small", "embedded", "runs/large"]) == {
        "a/small": "a/small",
        "b/small": "b/small",
        "embedded": "embedded",
        "runs/large": "large",
    }


def test_processes_of_other_runtimes_do_not_import_torch() -> None:
    code = "import sys, slimvox.measure.benchmark.worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_backend_in_bfloat16_holds_its_weights_so() -> None:
    loaded = load_module(SpeechEncoder(wavlm()), "torch-bf16")
    states = loaded.run(noise(1, 3200)).hidden_states  # type: ignore[attr-defined]
    assert loaded.module is not None
    tensors = [*loaded.module.parameters(), *states]
    assert {each.dtype for each in tensors} == {torch.bfloat16}


def test_the_size_of_a_model_is_that_of_the_weights_that_are_loaded(tmp_path: Path) -> None:
    SpeechEncoder(wavlm()).save_pretrained(tmp_path)
    for other in ("encoder.bin", "pytorch_model.bin", "model-00001-of-00002.safetensors"):
        (tmp_path / other).write_bytes(b"not loaded")
    contender = Contender(model=str(tmp_path), backend="torch", name="model")
    assert _file_bytes(contender) == (tmp_path / "model.safetensors").stat().st_size


def test_the_dense_model_of_a_whisper_is_its_encoder_on_the_whole_window(tmp_path: Path) -> None:
    whisper_models.recogniser(tmp_path / "dense")
    encoder = slimvox.load(tmp_path / "dense")
    waveforms = 0.1 * torch.randn(2, SAMPLES, generator=torch.Generator().manual_seed(0))
    contender = Contender(model=str(tmp_path / "dense"), backend="transformers", name="dense")
    loaded = load_contender(contender, torch.get_num_threads())
    with torch.inference_mode():
        expected = encoder(waveforms).last_hidden_state
    found = loaded.run(waveforms.numpy())
    torch.testing.assert_close(found.last_hidden_state, expected, atol=1e-4, rtol=1e-4)
    shorter = loaded.run(waveforms[:, : SAMPLES // 2].numpy())
    assert shorter.last_hidden_state.shape == expected.shape
    assert loaded.module is not None
    with BlockTimer(block_modules(loaded.module)) as timer:
        loaded.run(waveforms.numpy())
    assert timer.nanoseconds[Block("attention", 0)] > 0
