"""Distances between encoders, source by source."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

import models
import slimvox
import whisper_models
from slimvox.audio import read_audio
from slimvox.cli.main import run
from slimvox.util.errors import SlimvoxError
from tiny_runs import make_run, make_speech, make_teacher


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, an encoder pruned from it, noise, and something louder that is not like it."""
    folder = tmp_path_factory.mktemp("world")
    teacher = make_teacher(folder / "teacher")
    speech = make_speech(folder / "noise")
    make_run(folder / "pruned", teacher, speech, seed=0)
    (folder / "tones").mkdir()
    for number in range(4):
        time = np.arange(16_000 + 800 * number) / 16_000
        soundfile.write(folder / "tones" / f"{number}.wav", 0.5 * np.sin(880 * (number + 1) * time), 16_000)
    (folder / "tones" / "broken.wav").write_bytes(b"RIFF nothing")
    return folder


def by_hand(teacher: Path, student: Path, files: list[Path]) -> torch.Tensor:
    """Relative error of each state, from the definition: all frames in one matrix."""
    encoders = [slimvox.load(path) for path in (teacher, student)]
    with torch.inference_mode():
        wanted, got = (
            torch.cat(
                [
                    torch.stack(encoder(torch.from_numpy(read_audio(file))[None]).hidden_states)[:, 0]
                    for file in files
                ],
                1,
            )
            for encoder in encoders
        )
    squared = [(each - target).square().sum() for each, target in zip(got, wanted, strict=True)]
    return torch.stack(squared) / (wanted.var(1, correction=0).sum(-1) * wanted.shape[1])


def test_each_source_is_measured_by_itself(world: Path) -> None:
    result = slimvox.compare(
        world / "pruned", [world / "noise", world / "tones"], teacher=world / "teacher", seconds=None
    )
    noise, tones = result.sources
    assert (noise.clips, tones.clips) == (12, 4)
    assert noise.skipped == {} and tones.skipped == {"unreadable": 1}
    assert len(noise.distances.relative_errors) == 4  # what enters the first layer, and three layers
    for source, folder in ((noise, "noise"), (tones, "tones")):
        files = [file for file in sorted((world / folder).glob("*.wav")) if file.stem != "broken"]
        # The variance is summed clip by clip around each clip's own mean, so it is smaller than that of all.
        expected = by_hand(world / "teacher", world / "pruned", files)
        measured = torch.tensor(source.distances.relative_errors)
        assert (measured >= 0.999 * expected).all()
        assert source.distances.mean.relative_error == pytest.approx(float(measured.mean()))


def test_one_clip_is_what_the_definition_says(world: Path) -> None:
    clip = world / "noise" / "03.wav"
    result = slimvox.compare(world / "pruned", clip, teacher=world / "teacher")
    expected = by_hand(world / "teacher", world / "pruned", [clip])
    assert result.sources[0].distances.relative_errors == pytest.approx(expected.tolist(), rel=1e-4)


def test_silent_and_single_frames_are_left_out_and_counted(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = read_audio(world / "noise" / "03.wav")
    (tmp_path / "mixed").mkdir()
    soundfile.write(tmp_path / "mixed" / "sound.wav", noise, 16_000, "FLOAT")
    alone = slimvox.compare(world / "pruned", tmp_path / "mixed", teacher=world / "teacher")
    soundfile.write(tmp_path / "mixed" / "silent.wav", np.zeros(64_000), 16_000)
    soundfile.write(tmp_path / "mixed" / "frame.wav", noise[:450], 16_000)
    beside = slimvox.compare(world / "pruned", tmp_path / "mixed", teacher=world / "teacher")
    assert beside.sources[0].distances == alone.sources[0].distances
    assert beside.sources[0].clips == 1 and beside.sources[0].skipped == {"silent": 1, "too short": 1}
    for name, reason in (("silent", "1 silent"), ("frame", "1 audio files can be used")):
        with pytest.raises(SlimvoxError, match=reason):
            slimvox.compare(world / "pruned", tmp_path / "mixed" / f"{name}.wav", teacher=world / "teacher")
    half = tmp_path / "half.wav"
    soundfile.write(half, np.concatenate([noise, np.zeros(16_000)]), 16_000, "FLOAT")
    arguments = ["compare", str(world / "pruned"), str(half), "--teacher", str(world / "teacher")]
    assert run(arguments) == 0
    # Less than a second: the first of these frames still read some of the sound.
    assert "left out 0.9 s of silence in these clips" in capsys.readouterr().out


def test_weights_that_are_not_finite_end_with_status_1_and_no_json(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(world / "teacher", tmp_path / "broken")
    path = tmp_path / "broken" / "model.safetensors"
    weights = load_file(path)
    name = next(each for each in weights if each.endswith("output_dense.weight"))
    weights[name][0, 0] = float("nan")
    save_file(weights, path, {"format": "pt"})
    teacher, clip = str(world / "teacher"), str(world / "noise" / "03.wav")
    for arguments in (
        [str(tmp_path / "broken"), clip, "--teacher", teacher],
        [teacher, clip, "--teacher", str(tmp_path / "broken")],
    ):
        assert run(["compare", *arguments, "--json"]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        text = " ".join(captured.err.split())
        assert "broken: `" in text and "output_dense.weight` holds NaN or infinite" in text


def test_an_encoder_is_no_distance_from_itself(world: Path) -> None:
    result = slimvox.compare(world / "teacher", world / "noise", teacher=world / "teacher")
    assert result.sources[0].distances.mean.relative_error == 0.0


def test_the_draw_is_as_long_as_wanted_and_the_same_again(world: Path) -> None:
    def measured(seed: int) -> slimvox.Comparison:
        return slimvox.compare(
            world / "pruned", world / "noise", teacher=world / "teacher", seconds=3.0, seed=seed
        )

    first = measured(0)
    assert 3.0 <= first.sources[0].distances.seconds < 3.0 + 1.5  # the last clip may be longer than needed
    assert measured(0) == first
    assert measured(1).sources[0].distances != first.sources[0].distances


def test_clips_are_cut_to_the_window_of_a_whisper(world: Path, tmp_path: Path) -> None:
    """The tones are 1.0, 1.05, 1.1 and 1.15 s long, the window is 1 s."""
    teacher = whisper_models.directory(tmp_path / "whisper")
    other = whisper_models.directory(tmp_path / "other", seed=1)
    (source,) = slimvox.compare(other, world / "tones", teacher=teacher, seconds=0).sources
    assert source.distances.seconds == pytest.approx(4) and source.skipped == {"unreadable": 1}
    (source,) = slimvox.compare(other, world / "tones", teacher=teacher, seconds=2.02).sources
    assert source.distances.seconds == pytest.approx(3), "what is cut off does not count as measured"


def test_the_teacher_is_found_where_the_directory_names_it(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of the teacher's local path only the last part is kept.
    with pytest.raises(SlimvoxError, match="was pruned from `teacher`, which is not in this folder"):
        slimvox.compare(world / "pruned", world / "noise")
    monkeypatch.chdir(world)
    assert slimvox.compare("pruned", world / "noise").teacher == "teacher"


def test_on_the_command_line(
    world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(world)
    assert run(["compare", "pruned", "noise", "tones", "--states"]) == 0
    text = capsys.readouterr().out
    assert "pruned compared with teacher" in text and "tones: skipped 1 unreadable" in text
    assert "Relative error of each hidden state" in text
    assert run(["compare", "pruned", "noise", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["teacher"] == "teacher" and content["sources"][0]["clips"] == 12
    assert len(content["sources"][0]["distances"]["relative_errors"]) == 4


def test_bad_input_is_one_sentence(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    wider = models.directory(tmp_path / "wider", "wavlm")
    (tmp_path / "nothing.txt").write_text("missing.wav\n")
    cases = [
        (["pruned"], "no audio given"),
        (["teacher", "noise"], "does not record a teacher; name one with --teacher"),
        (["pruned", "noise", "--teacher", str(wider)], "cannot be compared"),
        (["pruned", "noise", "--seconds", "-1"], "`--seconds` must be at least 0"),
        (["pruned", "nowhere"], "`nowhere` does not exist"),
        (["pruned", str(tmp_path / "nothing.txt")], "None of the 1 audio files can be used"),
    ]
    for arguments, message in cases:
        assert run(["compare", *arguments]) == 2, arguments
        captured = capsys.readouterr()
        text = " ".join((captured.out + captured.err).split())
        assert message in text, (arguments, text)
        assert "Traceback" not in text
