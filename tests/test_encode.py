"""`slimvox encode`: files of hidden states, and what becomes of earlier files and of those that cannot be read."""

from __future__ import annotations

import copy
import errno
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from rich.console import Console
from safetensors.numpy import load_file, save_file

import models
from slimvox.audio import read_audio
from slimvox.checkpoint import load
from slimvox.cli.encode import EncodeCommand
from slimvox.cli.main import run
from slimvox.encoder import SpeechEncoder
from slimvox.encoding import features_file
from slimvox.encoding.arrays import encode
from slimvox.encoding.encode import encode_files
from slimvox.encoding.feature_writer import FeatureWriter
from slimvox.encoding.layers import parse_layers
from slimvox.util.errors import SlimvoxError


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> SpeechEncoder:
    return load(models.directory(tmp_path_factory.mktemp("base"), "wavlm"))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> SpeechEncoder:
    return load(models.directory(tmp_path_factory.mktemp("large"), "wavlm", "large"))


def write_audio(path: Path, samples: int, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = 0.1 * np.random.default_rng(seed).standard_normal(samples)
    soundfile.write(path, noise.astype(np.float32), 16_000, subtype="PCM_16")
    return path


def states(encoder: SpeechEncoder, path: Path) -> list[np.ndarray]:
    with torch.no_grad():
        return [s[0].numpy() for s in encoder(torch.from_numpy(read_audio(path))[None]).hidden_states]


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(".")]


@pytest.mark.parametrize("format", ["npz", "safetensors"])
def test_a_short_file_holds_the_encoders_hidden_states(
    base: SpeechEncoder, tmp_path: Path, format: Any
) -> None:
    path = write_audio(tmp_path / "a.wav", 3000)
    result = encode_files(base, path, tmp_path / "out", format=format)
    assert (result.written, result.already_there, result.skipped) == (1, 0, {})
    assert result.seconds == pytest.approx(3000 / 16_000)
    file = tmp_path / "out" / f"a.{format}"
    read = dict(np.load(file)) if format == "npz" else load_file(file)
    assert sorted(read) == ["frame_rate_hz", "layer_00", "layer_01", "layer_02", "layer_03"]
    assert float(read["frame_rate_hz"]) == 16_000 / base.anatomy.hop and read["frame_rate_hz"].shape == ()
    for number, state in enumerate(states(base, path)):
        assert read[f"layer_{number:02d}"].dtype == np.float32
        np.testing.assert_array_equal(read[f"layer_{number:02d}"], state)
    assert leftovers(tmp_path) == []


def test_safetensors_stays_aligned_and_readable_with_float16(base: SpeechEncoder, tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.wav", 999)
    encode_files(base, [path], tmp_path / "out", format="safetensors", dtype="float16", layers=(3, 1, 3))
    read = load_file(tmp_path / "out" / "a.safetensors")
    assert sorted(read) == ["frame_rate_hz", "layer_01", "layer_03"]
    assert read["layer_03"].dtype == np.float16
    np.testing.assert_array_equal(read["layer_03"], states(base, path)[3].astype(np.float16))


def test_the_last_hidden_state_is_that_of_the_encoder(large: SpeechEncoder, tmp_path: Path) -> None:
    """In a pre-norm model it is not the last of the numbered ones."""
    path = write_audio(tmp_path / "a.wav", 3000)
    encode_files(large, path, tmp_path / "out", layers="last")
    read = np.load(tmp_path / "out" / "a.npz")
    assert sorted(read.files) == ["frame_rate_hz", "last_hidden_state"]
    with torch.no_grad():
        expected = large(torch.from_numpy(read_audio(path))[None]).last_hidden_state[0]
    np.testing.assert_array_equal(read["last_hidden_state"], expected)
    np.testing.assert_array_equal(read["last_hidden_state"], encode(path, large, layers="last"))
    assert encode_files(large, path, tmp_path / "out", layers="last").already_there == 1


def test_float16_overflow_is_an_error(tmp_path: Path) -> None:
    encoder = load(models.directory(tmp_path / "model", "wavlm"))
    with torch.no_grad():
        encoder.layer_norm.weight.mul_(1e6)
    path = write_audio(tmp_path / "a.wav", 3000)
    with pytest.raises(SlimvoxError, match="beyond the range of float16"):
        encode_files(encoder, path, tmp_path / "out", dtype="float16")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("format", ["npz", "safetensors"])
@pytest.mark.parametrize("samples", [16_000, 17_613])
def test_chunked_is_close_to_whole_in_the_middle(
    large: SpeechEncoder, tmp_path: Path, format: Any, samples: int
) -> None:
    path = write_audio(tmp_path / "a.wav", samples)
    encode_files(large, path, tmp_path, format=format, chunk_seconds=0.25, overlap_seconds=0.1)
    file = tmp_path / f"a.{format}"
    read = dict(np.load(file)) if format == "npz" else load_file(file)
    for number, state in enumerate(states(large, path)):
        chunked = read[f"layer_{number:02d}"]
        assert chunked.shape == state.shape == (large.anatomy.frames(samples), large.anatomy.width)
        error = np.linalg.norm(chunked - state) / np.linalg.norm(state - state.mean(0))
        shifted = np.linalg.norm(chunked[1:] - state[:-1]) / np.linalg.norm(state - state.mean(0))
        assert error < 0.2 and error < shifted / 4
        # What enters the first layer sees a few frames only, and half an overlap is more than these.
        if number == 0:
            np.testing.assert_allclose(chunked, state, atol=1e-4)


def test_bad_files_are_skipped_and_counted(
    base: SpeechEncoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    audio = tmp_path / "audio"
    write_audio(audio / "good" / "a.wav", 2000)
    soundfile.write(audio / "silent.wav", np.zeros(2000, dtype=np.float32), 16_000)
    write_audio(audio / "short.wav", base.anatomy.receptive_field - 1)
    write_audio(audio / "none.wav", 0)
    (audio / "empty.wav").touch()
    (audio / "broken.wav").write_bytes(b"no audio at all" * 9)
    result = encode_files(base, audio, tmp_path / "out")
    assert result.written == 2
    assert result.skipped == {"too short": 1, "empty": 2, "unreadable": 1}
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.npz")) == [
        "good/a.npz",
        "silent.npz",
    ]
    assert "short.wav" in caplog.text and "broken.wav" in caplog.text
    with pytest.raises(SlimvoxError, match="None of the audio could be encoded"):
        encode_files(base, [audio / "short.wav", audio / "broken.wav"], tmp_path / "out")


def test_a_row_that_asks_for_more_than_its_file_has_is_no_output(base: SpeechEncoder, tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", 32_000)
    (tmp_path / "m.csv").write_text("path,start,end\na.wav,0,2.5\na.wav,0,16000\na.wav,1,\n")
    result = encode_files(base, tmp_path / "m.csv", tmp_path / "out")
    assert result.written == 2 and result.skipped == {"truncated": 1}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a_0.0-2.5.npz", "a_1.0-.npz"]


@pytest.mark.parametrize("format", ["npz", "safetensors"])
def test_outputs_of_the_same_encoder_and_options_are_kept_unless_overwritten(
    base: SpeechEncoder, tmp_path: Path, format: Any
) -> None:
    write_audio(tmp_path / "a.wav", 2000)
    out = tmp_path / "out"
    result = encode_files(base, tmp_path, out, format=format)
    assert (result.written, result.already_there) == (1, 0)
    file = out / f"a.{format}"
    before = file.read_bytes(), file.stat().st_mtime_ns
    write_audio(tmp_path / "b.wav", 2000)
    result = encode_files(base, tmp_path, out, format=format)
    assert (result.written, result.already_there) == (1, 1)
    result = encode_files(base, tmp_path, out, format=format)
    assert (result.written, result.already_there, result.seconds) == (0, 2, 0.0)
    assert before == (file.read_bytes(), file.stat().st_mtime_ns)
    result = encode_files(base, tmp_path, out, format=format, overwrite=True)
    assert (result.written, result.already_there) == (2, 0)


@pytest.mark.parametrize("format", ["npz", "safetensors"])
@pytest.mark.parametrize(
    ("changes", "different"),
    [
        ({"layers": (1, 2)}, "layers"),
        ({"dtype": "float16"}, "dtype"),
        ({"chunk_seconds": 7.0}, "chunk"),
        ({"overlap_seconds": 1.0}, "overlap"),
        ({"model": "another"}, "encoder"),
        ({"audio": "longer"}, "audio"),
    ],
)
def test_features_of_something_else_are_neither_kept_nor_replaced(
    base: SpeechEncoder, tmp_path: Path, format: Any, changes: dict[str, Any], different: str
) -> None:
    audio = write_audio(tmp_path / "a.wav", 2000)
    out = tmp_path / "out"
    encode_files(base, audio, out, format=format)
    before = (out / f"a.{format}").read_bytes()
    write_audio(tmp_path / "b.wav", 2000)
    model, changes = base, dict(changes)
    if changes.pop("model", None):
        model = copy.deepcopy(base)
        with torch.no_grad():
            next(model.parameters()).view(-1)[0] += 1e-3
    if changes.pop("audio", None):
        write_audio(audio, 2100)
    with pytest.raises(
        SlimvoxError, match=f"a.{format} exists already and has features of another {different};"
    ):
        encode_files(model, tmp_path, out, format=format, **changes)
    assert [path.read_bytes() for path in out.iterdir()] == [before]
    result = encode_files(model, tmp_path, out, format=format, overwrite=True, **changes)
    assert result.written == 2
    assert encode_files(model, tmp_path, out, format=format, **changes).already_there == 2


def test_features_of_other_audio_of_the_same_length_are_not_kept(base: SpeechEncoder, tmp_path: Path) -> None:
    audio, out = write_audio(tmp_path / "a.wav", 2000), tmp_path / "out"
    encode_files(base, audio, out)
    os.utime(audio, ns=(0, 0))  # as by a copy to another machine
    assert encode_files(base, audio, out).already_there == 1
    write_audio(audio, 2000, seed=1)
    with pytest.raises(SlimvoxError, match="features of another audio;"):
        encode_files(base, audio, out)


def test_a_shard_with_other_audio_is_noticed(base: SpeechEncoder, tmp_path: Path) -> None:
    shard, out = tmp_path / "speech.tar", tmp_path / "out"
    for seed in range(2):
        with tarfile.open(shard, "w") as archive:
            archive.add(write_audio(tmp_path / "a.wav", 2000, seed), "a.wav")
        if not seed:
            assert encode_files(base, shard, out).written == 1
            assert encode_files(base, shard, out).already_there == 1
    with pytest.raises(SlimvoxError, match="features of another audio;"):
        encode_files(base, shard, out)


@pytest.mark.parametrize("format", ["npz", "safetensors"])
def test_outputs_of_earlier_versions_are_kept(
    base: SpeechEncoder, tmp_path: Path, format: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They record the size of an audio file, and nothing else about its content."""
    audio = write_audio(tmp_path / "a.wav", 2000)
    with monkeypatch.context() as patch:
        patch.setattr(FeatureWriter, "origin", FeatureWriter._settings)
        encode_files(base, audio, tmp_path / "out", format=format)
    assert encode_files(base, audio, tmp_path / "out", format=format).already_there == 1


def test_the_encoder_is_in_evaluation_mode_while_it_encodes(base: SpeechEncoder, tmp_path: Path) -> None:
    audio = write_audio(tmp_path / "a.wav", 2000)
    encoder = copy.deepcopy(base).train()
    encoder.layers[0].eval()
    encoder.layers[1].attention = Dropped(encoder.layers[1].attention)
    encode_files(encoder, audio, tmp_path / "out")
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "a.npz")["layer_03"], states(base, audio)[3])
    assert encoder.training and encoder.layers[1].training and not encoder.layers[0].training


class Dropped(torch.nn.Module):
    """A module with dropout after it, as adapters have."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module, self.dropout = module, torch.nn.Dropout(0.5)

    def forward(self, *arguments: Any) -> torch.Tensor:
        return self.dropout(self.module(*arguments))


@pytest.mark.parametrize("content", [b"", b"mine", b"PK\x05\x06" + bytes(18), b"\x02" + bytes(7) + b"[]"])
@pytest.mark.parametrize("format", ["npz", "safetensors"])
def test_a_file_that_does_not_say_what_it_is_of_is_left_alone(
    base: SpeechEncoder, tmp_path: Path, format: Any, content: bytes
) -> None:
    audio = write_audio(tmp_path / "a.wav", 2000)
    (tmp_path / f"a.{format}").write_bytes(content)
    with pytest.raises(SlimvoxError, match="does not record its encoder; give another `--out`"):
        encode_files(base, audio, tmp_path, format=format)
    assert (tmp_path / f"a.{format}").read_bytes() == content


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_states_that_are_not_finite_are_an_error(
    base: SpeechEncoder, tmp_path: Path, dtype: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    model = models.directory(tmp_path / "model", "wavlm")
    tensors = load_file(model / "model.safetensors")
    name = next(name for name in tensors if "layers.1.final_layer_norm.weight" in name)
    tensors[name] = np.full_like(tensors[name], 3e38)  # weights that are not finite are refused before
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    audio = write_audio(tmp_path / "a.wav", 2000)
    out = tmp_path / "out"
    arguments = ["encode", str(model), str(audio), "--out", str(out), "--device", "cpu", "--dtype", dtype]
    assert run(arguments) == 1
    text = " ".join(capsys.readouterr().err.split())
    assert "a.wav`: hidden states `layer_02` are NaN or infinite; check the encoder's weights" in text
    assert list(out.iterdir()) == []
    assert run([*arguments, "--layers", "0,1"]) == 0


@pytest.mark.parametrize(
    ("raised", "seen", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), SlimvoxError, "is full"),
        (
            PermissionError(errno.EACCES, "Permission denied"),
            SlimvoxError,
            "cannot be written: Permission denied",
        ),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
@pytest.mark.parametrize("format", ["npz", "safetensors"])
def test_nothing_is_left_behind_when_writing_fails(
    base: SpeechEncoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    format: Any,
    raised: BaseException,
    seen: type[BaseException],
    message: str | None,
) -> None:
    path = write_audio(tmp_path / "a.wav", 2000)

    def fail(source: Path, to: Any) -> None:
        to.write(b"half")
        raise raised

    monkeypatch.setattr(features_file, "_copy", fail)
    with pytest.raises(seen, match=message):
        encode_files(base, path, tmp_path / "out", format=format)
    assert list((tmp_path / "out").iterdir()) == []


def test_damage_in_the_middle_leaves_nothing_behind(base: SpeechEncoder, tmp_path: Path) -> None:
    samples = np.full(100_000, 0.1, dtype=np.float32)
    samples[90_000] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    write_audio(tmp_path / "b.wav", 2000)
    result = encode_files(base, tmp_path, tmp_path / "out", chunk_seconds=1, overlap_seconds=0.1)
    assert (result.written, result.skipped) == (1, {"unreadable": 1})
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.npz"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "0,4"}, "from 0 to 3"),
        ({"layers": "-1"}, "from 0 to 3"),
        ({"layers": ()}, "there are none"),
        ({"layers": "1;2"}, "`layers` must be"),
        ({"layers": 4}, "one is 4"),
        ({"chunk_seconds": 0.0}, "`chunk_seconds` must be above 0"),
        ({"chunk_seconds": 1e-3}, "`chunk_seconds` must be at least"),
        ({"chunk_seconds": float("nan")}, "`chunk_seconds` must be a finite number"),
        ({"overlap_seconds": -1.0}, "`overlap_seconds` must be at least 0"),
        ({"overlap_seconds": 30.0}, "`overlap_seconds` must be at least 0"),
        ({"format": "csv"}, "`format` must be one of"),
        ({"dtype": "int8"}, "`dtype` must be one of"),
        ({"device": "tpu"}, "`device` must be one of"),
    ],
)
def test_bad_arguments_are_named(
    base: SpeechEncoder, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    path = write_audio(tmp_path / "a.wav", 2000)
    with pytest.raises(SlimvoxError, match=message):
        encode_files(base, path, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("layers", [[0, 2], {2, 0}, np.array([2, 0]), torch.tensor([0, 2]), iter((0, 2))])
def test_layers_are_integers_of_any_kind(layers: Any) -> None:
    assert parse_layers(layers, 3) == (0, 2)
    assert parse_layers(1, 3) == parse_layers(np.int64(1), 3) == parse_layers(np.array(1), 3) == (1,)


@pytest.mark.parametrize(
    "layers", [True, None, 1.0, [0.5], ["0"], [True], np.array([[0, 1]]), np.array([0.0])]
)
def test_what_is_no_layer(layers: Any) -> None:
    with pytest.raises(SlimvoxError, match="`layers` must be"):
        parse_layers(layers, 3)


def test_out_must_be_a_directory(base: SpeechEncoder, tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.wav", 2000)
    with pytest.raises(SlimvoxError, match="must be a directory"):
        encode_files(base, path, path)
    with pytest.raises(SlimvoxError, match="cannot be written"):
        encode_files(base, path, path / "below")


def test_the_command_prints_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = models.directory(tmp_path / "model", "hubert")
    write_audio(tmp_path / "audio" / "a.wav", 16_000)
    write_audio(tmp_path / "audio" / "b.wav", 3)
    command = EncodeCommand(
        model=str(model), audio=(str(tmp_path / "audio"),), out=tmp_path / "out", layers="0,2", device="cpu"
    )
    command.run(Console(highlight=False))
    printed = capsys.readouterr().out
    assert printed == f"1 written (1.0 s of audio), 1 skipped as too short; in {tmp_path / 'out'}\n"
    assert sorted(np.load(tmp_path / "out" / "a.npz").files) == ["frame_rate_hz", "layer_00", "layer_02"]
    with pytest.raises(SlimvoxError, match="no audio given"):
        EncodeCommand(model="embedded", audio=(), out=tmp_path / "out").run(Console())


def test_overwrite_is_a_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = models.directory(tmp_path / "model", "hubert")
    path = write_audio(tmp_path / "a.wav", 3000)
    arguments = ["encode", str(model), str(path), "--out", str(tmp_path / "out"), "--device", "cpu"]
    for extra, words in (([], "1 written"), ([], "1 already there"), (["--overwrite"], "1 written")):
        assert run([*arguments, *extra]) == 0
        assert words in capsys.readouterr().out
    assert run([*arguments, "--layers", "last", "--overwrite"]) == 0
    assert np.load(tmp_path / "out" / "a.npz").files == ["last_hidden_state", "frame_rate_hz"]
    assert run([*arguments, "--layers", "9"]) == 2
    assert "from 0 to 3" in capsys.readouterr().err
