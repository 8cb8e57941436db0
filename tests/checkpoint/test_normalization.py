"""Normalisation of waveforms, compared with `AutoFeatureExtractor` of `transformers` on the same directory."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoFeatureExtractor,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Processor,
)

import models
import slimvox
from slimvox.checkpoint import write_slimvox_directory

EXTRACTOR = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 1}
YES, NO = {**EXTRACTOR, "do_normalize": True}, {**EXTRACTOR, "do_normalize": False}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A large wav2vec 2.0 without the settings of a feature extractor."""
    return models.directory(tmp_path_factory.mktemp("original"), "wav2vec2", "large")


@pytest.fixture
def directory(original: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    for file in original.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def write(directory: Path, *, processor: Any = None, preprocessor: Any = None) -> None:
    for name, content in (("processor", processor), ("preprocessor", preprocessor)):
        if content is not None:
            (directory / f"{name}_config.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("processor", "preprocessor"),
    [
        (None, YES),
        (None, NO),
        (None, EXTRACTOR),
        (None, {}),
        ({"feature_extractor": YES}, None),
        ({"feature_extractor": NO}, None),
        ({"feature_extractor": EXTRACTOR}, None),
        ({"feature_extractor": NO}, YES),
        ({"feature_extractor": EXTRACTOR}, NO),
        ({"processor_class": "Wav2Vec2Processor"}, NO),
        ({"processor_class": "Wav2Vec2Processor"}, EXTRACTOR),
    ],
)
def test_the_answer_is_that_of_the_feature_extractor(
    processor: Any, preprocessor: Any, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(directory, processor=processor, preprocessor=preprocessor)
    encoder = slimvox.load(directory)
    expected = AutoFeatureExtractor.from_pretrained(directory).do_normalize
    assert encoder.anatomy.normalize_waveform is expected
    assert not caplog.records
    write_slimvox_directory(encoder, directory / "ours", kept_indices={}, model_card="")
    assert AutoFeatureExtractor.from_pretrained(directory / "ours").do_normalize is expected


def test_a_processor_saved_by_transformers_is_read(directory: Path) -> None:
    """Version 5 saves the extractor's settings within `processor_config.json`, and nowhere else."""
    vocabulary = directory / "vocab.json"
    vocabulary.write_text(json.dumps({"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "a": 5}))
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    Wav2Vec2Processor(extractor, Wav2Vec2CTCTokenizer(str(vocabulary))).save_pretrained(directory)
    assert not (directory / "preprocessor_config.json").exists()
    encoder = slimvox.load(directory)
    waveform = 5 * torch.randn(1, 3000) + 2
    prepared = extractor(waveform[0].numpy(), sampling_rate=16_000, return_tensors="pt")["input_values"]
    with torch.no_grad():
        raw, normalised = encoder(waveform).last_hidden_state, encoder(prepared).last_hidden_state
    torch.testing.assert_close(raw, normalised, atol=1e-4, rtol=1e-4)


def test_where_nothing_says_a_warning_does(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="slimvox.checkpoint"):
        encoder = slimvox.load(directory)
    assert not encoder.anatomy.normalize_waveform
    assert "neither processor_config.json nor preprocessor_config.json" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({**YES, "sampling_rate": 8000}, "`sampling_rate` must be 16000, but is 8000"),
        ({**YES, "sampling_rate": "16k"}, "`sampling_rate` must be a whole number"),
        ({**YES, "do_normalize": "no"}, "`do_normalize` must be true or false, but is 'no'"),
        (
            {**YES, "feature_extractor_type": "WhisperFeatureExtractor"},
            "must be one of Wav2Vec2FeatureExtractor",
        ),
    ],
)
@pytest.mark.parametrize("place", ["processor", "preprocessor"])
def test_settings_for_other_audio_are_refused(
    place: str, settings: dict[str, Any], message: str, directory: Path
) -> None:
    write(directory, **{place: settings if place == "preprocessor" else {"feature_extractor": settings}})
    with pytest.raises(slimvox.SlimvoxError, match=f"{place}_config.json: .*{message}"):
        slimvox.load(directory)


def test_settings_that_are_not_an_object_are_refused(directory: Path) -> None:
    write(directory, processor={"feature_extractor": ["do_normalize"]})
    with pytest.raises(slimvox.SlimvoxError, match="`feature_extractor` must be a table"):
        slimvox.load(directory)
