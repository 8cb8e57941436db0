"""Transcription by a whole Whisper: its words are those of `transformers`, and its errors those of a count by hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoProcessor, WhisperForConditionalGeneration

import slimvox
import whisper_models
from evaluation_tables import write_table
from missing_packages import exports
from slimvox.cli.main import run
from slimvox.evaluation import waveforms
from slimvox.evaluation.transcriber import Transcriber, normalizer, transcriber_of
from slimvox.evaluation.upstreams import load_upstream
from slimvox.util.errors import SlimvoxError
from tiny_runs import make_run, make_speech
from whisper_models import SAMPLES

LETTERS = "abcdefghijklmnopqrstuvwxyz"
CLIPS = 5


def speak(name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Noise whose length and loudness depend on the number of a clip."""
    number = int(name)
    draw = np.random.default_rng(number)
    noise = draw.normal(size=SAMPLES - 2_000 * number) * np.geomspace(0.001, 0.3, SAMPLES - 2_000 * number)
    return noise[:: (-1) ** number].astype(np.float32).copy()


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Whisper that writes one word of letters, depending on what it hears."""
    path = tmp_path_factory.mktemp("whisper") / "dense"
    whisper_models.recogniser(path, seed=5)
    words = AutoProcessor.from_pretrained(path).tokenizer
    allowed = {words.convert_tokens_to_ids(letter) for letter in LETTERS}
    file = path / "generation_config.json"
    settings = json.loads(file.read_text())
    settings["suppress_tokens"] = [number for number in range(len(words)) if number not in allowed]
    file.write_text(json.dumps(settings))
    return path


@pytest.fixture(scope="module")
def pruned(dense: Path) -> Path:
    speech = make_speech(dense.with_name("speech"))
    make_run(dense.with_name("pruned"), dense, speech, target_parameters="50%")
    return dense.with_name("pruned")


@pytest.fixture(scope="module")
def data(dense: Path) -> Path:
    folder = dense.with_name("data")
    folder.mkdir()
    for number in range(CLIPS):
        soundfile.write(folder / f"{number}.wav", speak(str(number)), 16_000, subtype="FLOAT")
    return folder


@pytest.fixture(scope="module")
def words(dense: Path) -> list[str]:
    """Transcript of each clip by `transformers`, normalised."""
    model, processor = (
        WhisperForConditionalGeneration.from_pretrained(dense),
        AutoProcessor.from_pretrained(dense),
    )
    found = []
    for number in range(CLIPS):
        heard = processor(speak(str(number)), sampling_rate=16_000, return_tensors="pt").input_features
        tokens = model.generate(heard, language="en", task="transcribe", max_new_tokens=20, num_beams=1)
        (text,) = processor.batch_decode(tokens, skip_special_tokens=True)
        found.append(normalizer("en")(text))
    assert all(len(each.split()) == 1 for each in found) and len(set(found)) > 3
    return found


def table(path: Path, texts: Sequence[str] | None) -> Path:
    rows = [{"path": f"{number}.wav", "split": "test"} for number in range(CLIPS)]
    rows.append({"path": "missing.wav", "split": "train"})
    if texts is not None:
        rows = [{**row, "text": text} for row, text in zip(rows, [*texts, "unheard"], strict=True)]
    return write_table(path, rows)


def evaluated(model: Path | str, data: Path, manifest: Path, *overrides: str, **options: Any) -> Any:
    chosen = [f"transcription.{each}" for each in ("most_tokens=20", *overrides)]
    evaluation = slimvox.evaluate(
        model, data, manifests={"transcription": [manifest]}, overrides=chosen, device="cpu", **options
    )
    (result,) = evaluation.results
    return result


def wer(result: Any) -> float:
    return float(result.scores["transcription"]["mean"])


def test_the_words_are_those_of_transformers_and_errors_are_counted(
    dense: Path, data: Path, words: list[str], tmp_path: Path
) -> None:
    result = evaluated(dense, data, table(tmp_path / "same.tsv", words))
    assert wer(result) == 0 and result.scores["transcription"]["chance"] > 50
    assert [
        clip["words"] for clip in sorted(result.details[0]["clips"], key=lambda clip: clip["id"])
    ] == words
    texts = [words[0].upper() + "!", words[1] + " colour", "other", *words[3:]]
    result = evaluated(dense, data, table(tmp_path / "changed.tsv", texts))
    assert wer(result) == pytest.approx(100 * 2 / 6), "a word that is missing and one that differs, of six"
    outcomes = result.outcomes["transcription"]
    assert outcomes["values"] == [[0, 1, 1, 0, 0]] and outcomes["sizes"] == [1, 2, 1, 1, 1]
    assert result.details[0]["words"] == 6 and result.counts == {"test": CLIPS}


@pytest.mark.parametrize("overrides", [("batch=1",), ("batch=3",), ("language=none",)])
def test_batches_and_the_language_found_change_no_word(
    dense: Path, data: Path, words: list[str], tmp_path: Path, overrides: Sequence[str]
) -> None:
    assert wer(evaluated(dense, data, table(tmp_path / "a.tsv", words), *overrides)) == 0


def test_the_words_of_another_model_are_the_reference(
    dense: Path, pruned: Path, data: Path, words: list[str], tmp_path: Path
) -> None:
    table_without_text = table(tmp_path / "a.tsv", None)
    result = evaluated(pruned, data, table_without_text, f"reference={dense}")
    clips = {clip["id"]: clip for clip in result.details[0]["clips"]}
    assert [clips[f"{number}.wav"]["reference"] for number in range(CLIPS)] == words
    different = sum(clip["words"] != clip["reference"] for clip in clips.values())
    assert different and wer(result) == pytest.approx(100 * different / CLIPS)
    assert result.details[0]["audio_seconds"] == pytest.approx(
        sum(len(speak(str(n))) for n in range(CLIPS)) / 16_000
    )
    with pytest.raises(SlimvoxError, match=r"no test clip has words .* --set transcription.reference=MODEL"):
        evaluated(dense, data, table_without_text)


def test_one_batch_is_in_memory_at_a_time(
    dense: Path, data: Path, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clips are decoded when their batch comes, shortest first; those that are much too long are not decoded."""
    events: list[str] = []
    soundfile.write(data / "long.wav", np.tile(speak("0"), 3), 16_000)
    texts = table(tmp_path / "a.tsv", words)
    texts.write_text(texts.read_text() + "\t".join(["long.wav", "test", "long"]) + "\n")
    monkeypatch.setattr(
        waveforms, "_read", lambda each, real=waveforms._read: events.append(each.id) or real(each)
    )
    monkeypatch.setattr(
        Transcriber,
        "_tokens",
        lambda self, *a, real=Transcriber._tokens: events.append("batch") or real(self, *a),
    )
    result = evaluated(dense, data, texts, "batch=2")
    assert wer(result) == 0 and result.skipped == {"longer than the window": 1}
    assert [each[0] for each in events] == ["4", "3", "b", "2", "1", "b", "0", "b"]


@pytest.mark.parametrize("overrides", [("batch=1",), ("batch=3",)])
def test_a_plan_of_the_time_and_nothing_is_kept(
    dense: Path,
    pruned: Path,
    data: Path,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    overrides: Sequence[str],
) -> None:
    """The pace of some clips, multiplied by all of them; a second model takes its own time."""
    calls: list[int] = []

    def take(self: Transcriber, heard: Sequence[Any], language: str | None) -> list[str]:
        calls.append(len(heard))
        self.encoding.seconds += 2 * len(heard)
        self.decoding.seconds += 3 * len(heard)
        return [""] * len(heard)

    monkeypatch.setattr(Transcriber, "__call__", take)
    manifest = table(tmp_path / "a.tsv", words)
    plan = {"manifests": {"transcription": [manifest]}, "device": "cpu", "plan": True}
    chosen = [f"transcription.{each}" for each in overrides]
    (alone,) = slimvox.evaluate(dense, data, overrides=chosen, **plan).plan  # type: ignore[arg-type]
    assert (alone.recordings, alone.unreadable, alone.heads, alone.place) == (CLIPS, 0, 0, "none")
    assert alone.encoding_hours * 3600 == pytest.approx(2 * CLIPS)
    assert alone.head_hours * 3600 == pytest.approx(3 * CLIPS)
    assert alone.encoded_hours * 3600 == pytest.approx(CLIPS), "windows of 1 s"
    assert alone.audio_hours * 3600 == pytest.approx(sum(len(speak(str(n))) for n in range(CLIPS)) / 16_000)
    assert max(calls) == int(overrides[0][-1])
    with_other = [*chosen, f"transcription.reference={dense}"]
    (both,) = slimvox.evaluate(pruned, data, overrides=with_other, **plan).plan  # type: ignore[arg-type]
    assert both.hours == pytest.approx(2 * alone.hours)
    arguments = ["evaluate", str(dense), "--data", str(data), "--plan", "--device", "cpu"]
    assert run([*arguments, "--manifest", f"transcription={manifest}", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "TRANSCRIPTION" in printed and "features do not fit" not in printed
    assert not (tmp_path / "out").exists()


def test_nothing_but_words_is_written(tmp_path: Path) -> None:
    """A model that prefers timestamps and the end of the text writes neither where it must not."""
    whisper_models.recogniser(tmp_path, seed=0)
    words = AutoProcessor.from_pretrained(tmp_path).tokenizer
    letters = {words.convert_tokens_to_ids(letter) for letter in LETTERS}
    times = set(range(words.convert_tokens_to_ids("<|0.00|>"), words.convert_tokens_to_ids("<|1.02|>")))
    file = tmp_path / "generation_config.json"
    settings = json.loads(file.read_text())
    settings["suppress_tokens"] = [number for number in range(len(words)) if number not in letters | times]
    file.write_text(json.dumps(settings))
    texts = transcriber_of(load_upstream(tmp_path), most_tokens=20)(
        [speak(str(n)) for n in range(CLIPS)], "en"
    )
    assert [len(text) for text in texts] == [20] * CLIPS


def test_the_command_keeps_its_result_and_prints_the_pace(
    dense: Path, data: Path, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "evaluate",
        str(dense),
        "--data",
        str(data),
        "--tasks",
        "transcription",
        "--out",
        str(tmp_path / "out"),
    ]
    arguments += ["--manifest", f"transcription={table(tmp_path / 'a.tsv', words)}", "--device", "cpu"]
    assert run([*arguments, "--set", "transcription.most_tokens=20"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "WER" in printed
        and "TRANSCRIPTION: " in printed
        and "s of computation per second of audio" in printed
    )
    details = json.loads((tmp_path / "out" / "transcription.json").read_text())["details"][0]
    assert 0 < details["encoder_real_time_factor"] < details["real_time_factor"]
    assert details["window_seconds"] == 1
    assert run([*arguments, "--set", "transcription.most_tokens=20", "--json"]) == 0
    assert '"reused": true' in capsys.readouterr().out
    assert run([*arguments, "--set", "transcription.most_tokens=10"]) == 2


def test_a_shorter_window_skips_longer_clips(
    dense: Path, data: Path, words: list[str], tmp_path: Path
) -> None:
    result = evaluated(dense, data, table(tmp_path / "a.tsv", words), "window_seconds=0.8")
    assert result.skipped == {"longer than the window": 2} and result.counts == {"test": 3}
    assert result.details[0]["window_seconds"] == pytest.approx(0.8)
    with pytest.raises(SlimvoxError, match="at most 1 s"):
        evaluated(dense, data, table(tmp_path / "a.tsv", words), "window_seconds=2")


@exports("onnx")
def test_a_file_that_was_exported_into_the_directory_transcribes(
    dense: Path, data: Path, words: list[str], tmp_path: Path
) -> None:
    directory = Path(shutil.copytree(dense, tmp_path / "model"))
    slimvox.export(directory, directory / "encoder.onnx", layers="all")
    assert wer(evaluated(directory / "encoder.onnx", data, table(tmp_path / "a.tsv", words))) == 0


def test_what_cannot_transcribe_is_named(dense: Path, data: Path, words: list[str], tmp_path: Path) -> None:
    manifest = table(tmp_path / "a.tsv", words)
    with pytest.raises(SlimvoxError, match="needs a Whisper with its decoder, which fbank is not"):
        evaluated("fbank", data, manifest)
    with pytest.raises(SlimvoxError, match="needs a Whisper with its decoder, which embedded is not"):
        evaluated("embedded", data, manifest)
    with pytest.raises(SlimvoxError, match="no language 'xx'; it has en"):
        evaluated(dense, data, manifest, "language=xx")
    bare = Path(shutil.copytree(dense, tmp_path / "bare"))
    for file in (*bare.glob("token*"), *bare.glob("vocab*"), *bare.glob("merges*"), *bare.glob("processor*")):
        file.unlink()
    with pytest.raises(SlimvoxError, match="has no tokenizer"):
        evaluated(bare, data, manifest)


def test_jiwer_is_asked_for_by_its_extra(
    dense: Path, data: Path, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slimvox.util.imports.importlib.util.find_spec", lambda name: None)
    with pytest.raises(SlimvoxError, match=r'transcription needs jiwer.*pip install "slimvox\[evaluation\]"'):
        evaluated(dense, data, table(tmp_path / "a.tsv", words))


def test_words_are_normalised_as_whispers_authors_do(tmp_path: Path) -> None:
    (tmp_path / "normalizer.json").write_text(json.dumps({"colour": "color"}))
    assert (
        normalizer("en", tmp_path)("Twenty-two Colours, colour: I'm not [noise].")
        == "22 colours color i am not"
    )
    assert normalizer("en")("colour") == "colour"
    assert normalizer("de")("Zweiundzwanzig, I'm (Lärm)!").split() == ["zweiundzwanzig", "i", "m"]


def test_bfloat16_is_the_precision_of_encoder_and_decoder(dense: Path) -> None:
    upstream = load_upstream(dense, precision="bf16")
    model = transcriber_of(upstream)
    assert model([speak("0")], "en")
    assert {each.dtype for each in model._whisper.model.decoder.parameters()} == {torch.bfloat16}
