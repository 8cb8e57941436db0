"""The two ONNX files of a Whisper transcribe without torch, and write what `generate` writes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSpeechSeq2Seq

import slimvox
import whisper_models
from missing_packages import exports
from slimvox.exporters import decoder as exported_decoder
from slimvox.pruning.surgery import slice_encoder
from slimvox.structures import Address
from whisper_models import SAMPLES

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = [pytest.mark.slow, exports("onnx")]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole Whisper, of whose encoder heads, channels and dimensions are gone."""
    folder = tmp_path_factory.mktemp("whisper")
    whisper_models.recogniser(folder / "dense")
    teacher = slimvox.load(folder / "dense")
    masks = {
        Address("head", 0): torch.tensor([1.0, 0, 1, 1]),
        Address("qk", 1): (torch.arange(32) % 3 > 0).float(),
        Address("conv", 0): (torch.arange(32) % 4 > 0).float(),
    }
    encoder = slice_encoder(teacher, masks).encoder
    encoder.origin = teacher.origin
    encoder.save_pretrained(folder / "pruned")
    return folder / "pruned"


@pytest.fixture(scope="module")
def result(pruned: Path) -> Any:
    """Both files, in the model's directory."""
    return slimvox.export(pruned, heads=True)


def test_onnxruntime_alone_writes_what_generate_writes(pruned: Path, result: Any) -> None:
    assert (result.path.name, result.decoder.name) == ("model.onnx", "model-decoder.onnx")
    path = ROOT / "examples" / "transcribe_with_onnx.py"
    specification = importlib.util.spec_from_file_location("transcribe_with_onnx", path)
    assert specification is not None and specification.loader is not None
    example: Any = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(example)
    encoder, decoder = (
        onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        for file in (result.path, result.decoder)
    )
    model = AutoModelForSpeechSeq2Seq.from_pretrained(pruned)
    settings = model.generation_config
    prompt = [settings.decoder_start_token_id, settings.lang_to_id["<|en|>"]]
    prompt += [settings.task_to_id["transcribe"], settings.no_timestamps_token_id]
    settings.suppress_tokens = settings.begin_suppress_tokens = None
    about = decoder.get_modelmeta().custom_metadata_map
    end = json.loads(about["eos_token_id"])
    assert end == settings.eos_token_id and about["head"] == "ForConditionalGeneration"
    texts = []
    for seed in range(3):
        noise = np.random.default_rng(seed).normal(size=SAMPLES) * np.linspace(0, 0.1 * (seed + 1), SAMPLES)
        waveform = noise.astype(np.float32)
        features = whisper_models.feature_extractor()(waveform, sampling_rate=16_000, return_tensors="pt")
        expected = model.generate(
            **features, language="en", task="transcribe", max_new_tokens=12, return_timestamps=False
        )
        found = example.decode(encoder, decoder, waveform, prompt, end, 12)
        written = [token for token in expected[0].tolist() if token not in (*prompt, end)]
        assert [token for token in found if token not in prompt] == written
        texts.append(found)
    assert texts[0] != texts[2], "what is written must depend on what is heard"


def test_what_is_wrong_with_a_decoder_is_found(result: Any, pruned: Path) -> None:
    whisper = exported_decoder.load_whisper(pruned)
    program = slimvox.exporters.export_format("onnx").open(result.decoder)
    assert exported_decoder.decoder_difference(program, whisper) < 1e-4
    with torch.no_grad():
        whisper.model.decoder.layers[1].encoder_attn.q_proj.weight.mul_(1.5)
    assert exported_decoder.decoder_difference(program, whisper) > 1e-3


def test_decoders_are_for_onnx(pruned: Path, tmp_path: Path) -> None:
    with pytest.raises(slimvox.SlimvoxError, match="a decoder is for --format onnx only"):
        slimvox.export(pruned, tmp_path / "model.pt2", format="torch-export", heads=True)
    assert not [*tmp_path.iterdir()]
