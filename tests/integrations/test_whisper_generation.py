"""A Whisper that went through slimvox is a Whisper for `transformers`: `generate`, timestamps and the pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor, WhisperForConditionalGeneration, pipeline

import slimvox
import whisper_models
from hub_server import serving
from slimvox.hf.directory_format import CODE_FILES
from slimvox.hf.whisper import SlimvoxWhisperForConditionalGeneration
from tiny_runs import make_run, make_speech
from whisper_models import SAMPLES
from without_slimvox import run_without_slimvox

WORDS: dict[str, Any] = {"language": "en", "task": "transcribe", "max_new_tokens": 12, "num_beams": 1}
LONG = 5 * SAMPLES // 2


def recording() -> np.ndarray[Any, np.dtype[np.float32]]:
    """Noise of growing loudness, two and a half windows long."""
    noise = np.random.default_rng(0).normal(size=LONG) * np.linspace(0, 0.2, LONG)
    return noise.astype(np.float32)


def features() -> Tensor:
    """Spectrograms of the first and the last window of the recording."""
    clips = [recording()[:SAMPLES], recording()[-SAMPLES:]]
    extractor = whisper_models.feature_extractor()
    found: Tensor = extractor(clips, sampling_rate=16_000, return_tensors="pt").input_features
    return found


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole Whisper as `transformers` saves it."""
    path = tmp_path_factory.mktemp("whisper") / "dense"
    whisper_models.recogniser(path)
    return path


@pytest.fixture(scope="module")
def pruned(dense: Path) -> Path:
    """The directory of a run that pruned it by half."""
    speech = make_speech(dense.with_name("speech"))
    make_run(dense.with_name("pruned"), dense, speech, target_parameters="50%")
    return dense.with_name("pruned")


def test_what_was_not_pruned_writes_the_same_words(dense: Path, tmp_path: Path) -> None:
    slimvox.load(dense).save_pretrained(tmp_path / "again")
    original = WhisperForConditionalGeneration.from_pretrained(dense)
    model = AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path / "again")
    expected = original.generate(features(), **WORDS)
    assert len({tuple(each) for each in expected.tolist()}) == 2, (
        "what is written must depend on what is heard"
    )
    assert torch.equal(model.generate(features(), **WORDS), expected)
    with torch.no_grad():
        arguments = {"decoder_input_ids": torch.tensor([[257], [257]]), "output_hidden_states": True}
        ours, theirs = model(features(), **arguments), original(features(), **arguments)
    torch.testing.assert_close(ours.logits, theirs.logits, atol=1e-4, rtol=1e-4)
    assert len(ours.encoder_hidden_states) == len(theirs.encoder_hidden_states) == 4
    for a, b in zip(ours.encoder_hidden_states, theirs.encoder_hidden_states, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_a_run_gives_a_whole_whisper_back(dense: Path, pruned: Path) -> None:
    encoder, teacher = slimvox.load(pruned), slimvox.load(dense)
    assert encoder.anatomy != teacher.anatomy == encoder.dense_anatomy
    model = AutoModelForSpeechSeq2Seq.from_pretrained(pruned)
    assert isinstance(model, SlimvoxWhisperForConditionalGeneration)
    assert model.generate(features(), **WORDS).shape[0] == 2
    original = WhisperForConditionalGeneration.from_pretrained(dense)
    for name, weight in original.model.decoder.state_dict().items():
        assert torch.equal(weight, model.model.decoder.state_dict()[name])
    waveforms = torch.from_numpy(recording()[None, :SAMPLES])
    with torch.no_grad():
        states = model.model.encoder(features()[:1]).last_hidden_state
        torch.testing.assert_close(states, encoder(waveforms).last_hidden_state, atol=1e-5, rtol=1e-5)
        assert torch.equal(
            model.as_encoder()(waveforms).last_hidden_state, encoder(waveforms).last_hidden_state
        )
    assert json.loads((pruned / "config.json").read_text())["teacher"]["name"] == "dense"
    assert type(AutoProcessor.from_pretrained(pruned)).__name__ == "WhisperProcessor"
    settings = json.loads((pruned / "generation_config.json").read_text())
    assert settings == json.loads((dense / "generation_config.json").read_text())


@pytest.mark.parametrize(
    "options", [{"chunk_length_s": 1, "ignore_warning": True}, {"return_timestamps": True}]
)
def test_the_pipeline_takes_long_recordings(dense: Path, pruned: Path, options: dict[str, Any]) -> None:
    texts = []
    for directory in (dense, pruned):
        recognise = pipeline("automatic-speech-recognition", model=str(directory))
        assert recognise.type == "seq2seq_whisper"
        audio = {"raw": recording(), "sampling_rate": 16_000}
        result = recognise(audio, generate_kwargs=dict(WORDS), **options)
        assert result["text"] and ("chunks" in result) == ("return_timestamps" in options)
        texts.append(result["text"])
    assert texts[0] != texts[1]


def test_words_have_timestamps(pruned: Path) -> None:
    recognise = pipeline("automatic-speech-recognition", model=str(pruned))
    audio = {"raw": recording()[:SAMPLES], "sampling_rate": 16_000}
    result = recognise(audio, generate_kwargs=dict(WORDS), return_timestamps="word")
    assert result["chunks"] and all(len(chunk["timestamp"]) == 2 for chunk in result["chunks"])


def test_it_is_saved_pruned_further_and_trained(dense: Path, pruned: Path, tmp_path: Path) -> None:
    model = AutoModelForSpeechSeq2Seq.from_pretrained(pruned)
    expected = model.generate(features(), **WORDS)
    model.save_pretrained(tmp_path / "again")
    assert (
        not {path.name for path in pruned.iterdir() if path.is_file()}
        - {"run.lock"}
        - {path.name for path in (tmp_path / "again").iterdir()}
    )
    again = AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path / "again")
    assert torch.equal(again.generate(features(), **WORDS), expected)
    further = make_run(
        tmp_path / "further", tmp_path / "again", dense.with_name("speech"), target_parameters="30%"
    )
    smaller = AutoModelForSpeechSeq2Seq.from_pretrained(further.directory)
    assert smaller.model.encoder.parameter_count < again.model.encoder.parameter_count
    smaller.train()
    smaller.gradient_checkpointing_enable()
    smaller(features(), labels=torch.full((2, 4), 5)).loss.backward()
    assert all(each.grad is not None for each in smaller.model.encoder.parameters())


ELSEWHERE = """
import sys
import torch
from transformers import AutoModelForSpeechSeq2Seq
directory, inputs, out = sys.argv[1:]
model = AutoModelForSpeechSeq2Seq.from_pretrained(directory, trust_remote_code=True)
words = model.generate(torch.load(inputs), language="en", task="transcribe", max_new_tokens=12, num_beams=1)
model.save_pretrained(out)
again = AutoModelForSpeechSeq2Seq.from_pretrained(out, trust_remote_code=True)
assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values()))
torch.save(words, out + ".pt")
"""


def test_pushing_with_transformers_uploads_our_card_and_code(
    pruned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(monkeypatch, tmp_path / "cache") as hub:
        hub.uploads = tmp_path
        AutoModelForSpeechSeq2Seq.from_pretrained(pruned).push_to_hub("someone/new")
        again = AutoModelForSpeechSeq2Seq.from_pretrained("someone/new")
    uploaded = tmp_path / "someone" / "new"
    for name in ("README.md", "kept_indices.json", "tokenizer.json", *CODE_FILES):
        assert (uploaded / name).read_bytes() == (pruned / name).read_bytes()
    expected = AutoModelForSpeechSeq2Seq.from_pretrained(pruned).generate(features(), **WORDS)
    assert torch.equal(again.generate(features(), **WORDS), expected)


def test_it_loads_where_slimvox_is_not_installed(pruned: Path, tmp_path: Path) -> None:
    torch.save(features(), tmp_path / "inputs.pt")
    arguments = (pruned, tmp_path / "inputs.pt", tmp_path / "out")
    run_without_slimvox(ELSEWHERE, *arguments, modules=tmp_path / "modules")
    model = AutoModelForSpeechSeq2Seq.from_pretrained(pruned)
    assert torch.equal(torch.load(tmp_path / "out.pt"), model.generate(features(), **WORDS))


def test_more_windows_than_positions_are_one_sentence(pruned: Path) -> None:
    encoder = AutoModelForSpeechSeq2Seq.from_pretrained(pruned).model.encoder
    assert encoder(features()[:, :, :40]).last_hidden_state.shape[1] == 20
    with pytest.raises(ValueError, match="at most 100 windows, but holds 102 instead"):
        encoder(torch.zeros(1, 80, 102))


def test_an_encoder_alone_stays_an_encoder(tmp_path: Path) -> None:
    whisper_models.model().model.encoder.save_pretrained(tmp_path / "dense")
    slimvox.load(tmp_path / "dense").save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["model_type"] == "slimvox"
