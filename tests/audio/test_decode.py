"""Files to waveforms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio.audio_files import FORMATS, tone, write
from slimvox.audio import UnreadableAudioError, iter_audio_blocks, read_audio
from slimvox.util.errors import SlimvoxError


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize(("rate_hz", "channels"), [(16_000, 1), (48_000, 2), (8_000, 1)])
def test_every_format_gives_the_tone_back(
    tmp_path: Path, extension: str, rate_hz: int, channels: int
) -> None:
    path = write(tmp_path / f"x{extension}", tone(1.0, rate_hz, channels=channels), rate_hz)
    wave = read_audio(path)
    assert wave.dtype == np.float32
    assert wave.ndim == 1
    assert len(wave) == pytest.approx(16_000, abs=1)
    middle = slice(2_000, 14_000)
    wanted = tone(1.0) * (1.0 if channels == 1 else 0.75)
    np.testing.assert_allclose(wave[middle], wanted[middle], atol=0.1)


def test_44100_stereo_is_resampled_and_mixed(tmp_path: Path) -> None:
    path = write(tmp_path / "x.wav", tone(1.0, 44_100, channels=2), 44_100, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(path)[500:-500], 0.75 * tone(1.0)[500:-500], atol=1e-4)


def test_loud_samples_are_not_clipped(tmp_path: Path) -> None:
    path = write(tmp_path / "x.wav", 3.0 * tone(0.1), subtype="FLOAT")
    assert read_audio(path).max() == pytest.approx(1.5, abs=1e-3)


@pytest.mark.parametrize("extension", FORMATS)
def test_part_is_that_part_of_the_whole(tmp_path: Path, extension: str) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 48_000)
    path = write(tmp_path / f"x{extension}", noise)
    whole = read_audio(path)
    part = read_audio(path, offset_seconds=1.25, seconds=0.5)
    np.testing.assert_allclose(part, whole[20_000:28_000], atol=1e-4)
    end = read_audio(path, offset_seconds=2.9, seconds=5.0)
    if extension == ".ogg":  # in the last page of Vorbis, libsndfile lands a little off
        assert len(end) == pytest.approx(1_600, abs=128)
    else:
        np.testing.assert_allclose(end, whole[46_400:], atol=1e-4)
    assert len(read_audio(path, offset_seconds=3.5)) == 0


def test_part_where_seeking_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.wav", np.random.default_rng(0).normal(0, 0.1, 200_000))
    wanted = read_audio(path, offset_seconds=9.0, seconds=1.0)

    seek_well = soundfile.SoundFile.seek

    def seek(self: soundfile.SoundFile, frames: int, whence: int = 0) -> int:
        if frames == 9 * 16_000:
            raise RuntimeError("no seeking there")
        return seek_well(self, frames, whence)

    monkeypatch.setattr(soundfile.SoundFile, "seek", seek)
    np.testing.assert_array_equal(read_audio(path, offset_seconds=9.0, seconds=1.0), wanted)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("block_seconds", [0.3, 1.0, 60.0])
def test_blocks_joined_are_the_whole(tmp_path: Path, rate_hz: int, block_seconds: float) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (10 * rate_hz + 321, 2))
    path = write(tmp_path / "x.wav", noise, rate_hz)
    blocks = list(iter_audio_blocks(path, block_seconds=block_seconds))
    assert all(len(block) == round(block_seconds * 16_000) for block in blocks[:-1])
    assert 0 < len(blocks[-1]) <= round(block_seconds * 16_000)
    np.testing.assert_allclose(np.concatenate(blocks), read_audio(path), atol=1e-4)


def test_block_too_short(tmp_path: Path) -> None:
    with pytest.raises(SlimvoxError, match="`block_seconds` must be"):
        iter_audio_blocks(tmp_path / "x.wav", block_seconds=0.0)


def damaged(folder: Path) -> dict[str, Path]:
    paths = {name: folder / f"{name}.wav" for name in ("missing", "empty", "text", "folder", "nan")}
    paths["empty"].write_bytes(b"")
    paths["text"].write_bytes(b"this is not audio" * 100)
    paths["folder"].mkdir()
    write(paths["nan"], np.array([0.1, np.nan, 0.1] * 100), subtype="FLOAT")
    paths["flac"] = write(folder / "flac.flac", np.random.default_rng(0).normal(0, 0.1, 40_000))
    content = bytearray(paths["flac"].read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4_000] = bytes(4_000)
    paths["flac"].write_bytes(content)
    paths["raw"] = folder / "x.raw"
    paths["raw"].write_bytes(bytes(1_000))
    return paths


@pytest.mark.parametrize(
    ("name", "reason", "message"),
    [
        ("missing", "missing", "does not exist"),
        ("empty", "empty", "0 bytes"),
        ("text", "unreadable", "[Ff]ormat not recogni"),
        ("folder", "unreadable", "is not a file"),
        ("nan", "unreadable", "NaN or infinite"),
        ("flac", "unreadable", "cannot be read as audio: ."),
        ("raw", "unreadable", "cannot be read as audio: ."),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, name: str, reason: str, message: str) -> None:
    path = damaged(tmp_path)[name]
    with pytest.raises(UnreadableAudioError, match=message) as caught:
        read_audio(path)
    assert caught.value.reason == reason
    assert str(path) in str(caught.value)
    with pytest.raises(UnreadableAudioError):
        list(iter_audio_blocks(path, block_seconds=1.0))
