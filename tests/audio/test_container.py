"""Headers that lie about the length, and what must not be opened."""

from __future__ import annotations

import io
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import soundfile

from audio.audio_files import tone, write
from slimvox.audio import AudioSource, UnreadableAudioError, find_audio, read_audio, scan_audio
from slimvox.audio.container import is_chained_ogg
from slimvox.audio.decode import iter_audio_blocks, measure
from slimvox.audio.mp3 import SplicedFile, length_frame
from slimvox.audio.recordings import Recording
from slimvox.util.errors import SlimvoxError

RATE_HZ = 16_000
SECONDS = 6.0


def loud_then_silent() -> np.ndarray:
    """A signal whose first frames of MP3 say nothing about the bit rate of the rest."""
    loud = np.random.default_rng(0).normal(0, 0.2, int(2 * RATE_HZ))
    return np.concatenate([loud, np.zeros(int((SECONDS - 2.5) * RATE_HZ)), loud[: RATE_HZ // 2]])


def mp3(path: Path, wave: np.ndarray, rate_hz: int = RATE_HZ, mode: str = "VARIABLE") -> bytes:
    soundfile.write(path, wave, rate_hz, bitrate_mode=mode, compression_level=0.3)
    return path.read_bytes()


def without_table(content: bytes) -> bytes:
    """The frames behind the first one, which holds the length."""
    tag = max(content.find(b"Xing"), content.find(b"Info"))
    assert tag >= 0
    return content[content.find(content[:2], tag + 100) :]


@pytest.mark.parametrize(("rate_hz", "channels"), [(16_000, 1), (44_100, 2), (8_000, 1), (48_000, 1)])
@pytest.mark.parametrize("reverse", [False, True])
def test_mp3_without_its_length_is_decoded_whole(
    tmp_path: Path, rate_hz: int, channels: int, reverse: bool
) -> None:
    wave = np.repeat(loud_then_silent(), 3)[: int(SECONDS * rate_hz)]
    wave = wave[::-1] if reverse else wave
    wave = np.stack([wave] * channels, axis=1)
    content = mp3(tmp_path / "with.mp3", wave, rate_hz)
    path = tmp_path / "without.mp3"
    path.write_bytes(without_table(content))
    whole = read_audio(tmp_path / "with.mp3", sample_rate_hz=rate_hz)
    found = read_audio(path, sample_rate_hz=rate_hz)
    assert len(whole) == SECONDS * rate_hz
    # What is known without the table: all but the delay of the encoder and the padding of the last frame.
    assert SECONDS - 0.03 <= measure(path).seconds <= SECONDS + 0.4
    assert len(found) == measure(path).seconds * rate_hz
    delay = 576
    np.testing.assert_allclose(found[delay : delay + len(whole) - 3_000], whole[:-3_000], atol=0.01)


def test_tags_around_the_frames_are_passed_over(tmp_path: Path) -> None:
    frames = without_table(mp3(tmp_path / "x.mp3", loud_then_silent()))
    tagged = b"ID3\4\0\0\0\0\x48\0" + bytes(0x48 << 7) + frames + b"TAG" + bytes(125)
    (tmp_path / "tagged.mp3").write_bytes(tagged)
    (tmp_path / "plain.mp3").write_bytes(frames)
    plain = read_audio(tmp_path / "plain.mp3")
    np.testing.assert_array_equal(read_audio(tmp_path / "tagged.mp3")[: len(plain)], plain)
    assert measure(tmp_path / "tagged.mp3").seconds == measure(tmp_path / "plain.mp3").seconds


@pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT"])
def test_mp3_with_its_length_is_left_as_it_is(tmp_path: Path, mode: str) -> None:
    content = mp3(tmp_path / "x.mp3", loud_then_silent(), mode=mode)
    assert length_frame(io.BytesIO(content)) is None
    # A picture behind the audio is not audio.
    assert length_frame(io.BytesIO(content + b"APETAGEX" + bytes(100_000))) is None
    assert length_frame(io.BytesIO(b"no frames at all" * 1000)) is None


def test_joined_mp3_files_are_decoded_to_the_last(tmp_path: Path) -> None:
    content = mp3(tmp_path / "x.mp3", loud_then_silent())
    joined, alone = tmp_path / "joined.mp3", tmp_path / "alone.mp3"
    joined.write_bytes(content + content)
    alone.write_bytes(without_table(content))
    # Both files' frames, the table of the second as a frame of silence, and the decoder's delay once.
    samples = 2 * len(read_audio(alone)) + 576 + 529
    assert measure(joined).seconds * RATE_HZ == samples == len(read_audio(joined))
    assert samples == pytest.approx(2 * SECONDS * RATE_HZ, abs=0.3 * RATE_HZ)


def test_parts_of_an_mp3_without_its_length_are_those_of_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.mp3"
    path.write_bytes(without_table(mp3(path, loud_then_silent())))
    whole = read_audio(path)
    part = read_audio(path, offset_seconds=4.0, seconds=1.5)
    np.testing.assert_allclose(part, whole[64_000:88_000], atol=1e-4)
    np.testing.assert_allclose(
        np.concatenate(list(iter_audio_blocks(path, block_seconds=0.5))), whole, atol=1e-6
    )


def test_spliced_file_reads_as_the_joined_bytes() -> None:
    file = SplicedFile(b"head", io.BytesIO(b"0123456789"), 4)
    assert file.read() == b"head456789"
    assert file.seek(2) == 2 and file.read(2) == b"ad" and file.read(3) == b"456"
    assert file.seek(-1, io.SEEK_END) == 9 and file.read() == b"9" and file.read() == b""
    assert file.seek(3) == 3 and io.BufferedReader(file).read(4) == b"d456"


def test_flac_without_its_length_is_decoded_to_its_end(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, (10 * RATE_HZ, 2))
    path = write(tmp_path / "x.flac", wave)
    whole = read_audio(path)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # the number of samples, 36 bits of the first block
    content[22:26] = bytes(4)
    path.write_bytes(content)
    assert measure(path).seconds == 10.0
    np.testing.assert_array_equal(read_audio(path), whole)
    np.testing.assert_array_equal(read_audio(path, offset_seconds=9.0, seconds=0.5), whole[144_000:152_000])
    assert len(read_audio(path, offset_seconds=11.0)) == 0


def patched(content: bytes, offset: int, layout: str, *values: int) -> bytes:
    size = struct.calcsize(layout)
    return content[:offset] + struct.pack(layout, *values) + content[offset + size :]


LYING: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "no samples promised": (".wav", lambda wav: patched(wav, wav.find(b"data") + 4, "<I", 0)),
    "half promised": (".wav", lambda wav: patched(wav, wav.find(b"data") + 4, "<I", len(wav) // 4 * 2)),
    "size of au": (".au", lambda au: patched(au, 8, ">I", 40_000)),
    "chained vorbis": (".ogg", lambda ogg: ogg + ogg),
}


@pytest.mark.parametrize("name", LYING)
def test_samples_that_a_header_hides_are_an_error(tmp_path: Path, name: str) -> None:
    extension, damage = LYING[name]
    path = write(tmp_path / f"x{extension}", 0.5 * loud_then_silent())
    path.write_bytes(damage(path.read_bytes()))
    for read in (measure, read_audio):
        with pytest.raises(UnreadableAudioError, match=r"with ffmpeg\.$") as caught:
            read(path)
        assert caught.value.reason == "truncated"


@pytest.mark.parametrize("offset_seconds", [0.0, 1.0])
def test_a_file_that_ends_before_its_header_says_is_an_error(tmp_path: Path, offset_seconds: float) -> None:
    path = write(tmp_path / "x.mp3", 0.5 * np.tile(loud_then_silent(), 4))
    seconds = measure(path).seconds
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert measure(path).seconds == pytest.approx(seconds)
    with pytest.raises(UnreadableAudioError, match=r"its header promises") as caught:
        read_audio(path, offset_seconds=offset_seconds)
    assert caught.value.reason == "truncated"
    # The part that exists can be read.
    assert len(read_audio(path, seconds=seconds / 4)) == round(seconds / 4 * 16_000)


FINE: dict[str, Callable[[bytes], bytes]] = {
    "streamed": lambda wav: patched(wav, wav.find(b"data") + 4, "<I", 0xFFFF_FFFF),
    "titles behind": lambda wav: wav + b"LIST" + struct.pack("<I", 20_000) + bytes(20_000),
    "titles before": lambda wav: (
        wav[: wav.find(b"data")]
        + b"JUNK"
        + struct.pack("<I", 20_000)
        + bytes(20_000)
        + wav[wav.find(b"data") :]
    ),
    "zeros behind": lambda wav: wav + bytes(20_001),
}


@pytest.mark.parametrize("name", FINE)
def test_chunks_beside_the_samples_are_fine(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "x.wav", 0.5 * loud_then_silent())
    whole = read_audio(path)
    path.write_bytes(FINE[name](path.read_bytes()))
    np.testing.assert_array_equal(read_audio(path), whole)


def test_rf64_with_titles_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    soundfile.write(path, 0.5 * loud_then_silent(), RATE_HZ, format="RF64")
    whole = read_audio(path)
    path.write_bytes(path.read_bytes() + b"LIST" + struct.pack("<I", 20_000) + bytes(20_000))
    np.testing.assert_array_equal(read_audio(path), whole)


@pytest.mark.parametrize("extension", [".ogg", ".opus"])
def test_one_ogg_stream_is_not_chained(tmp_path: Path, extension: str) -> None:
    path = write(tmp_path / f"x{extension}", tone(3.0))
    content = path.read_bytes()
    assert not is_chained_ogg(io.BytesIO(content))
    assert not is_chained_ogg(io.BytesIO(content + bytes(1000)))
    assert is_chained_ogg(io.BytesIO(content + content))


@pytest.mark.parametrize("rate_hz", [1, 999, 4_000_000_000])
def test_absurd_sample_rate_is_an_error_before_memory_is_taken(tmp_path: Path, rate_hz: int) -> None:
    path = write(tmp_path / "x.wav", tone(1.0))
    path.write_bytes(patched(path.read_bytes(), 24, "<I", rate_hz))
    with pytest.raises(UnreadableAudioError, match=f"its header says {rate_hz} Hz|unreadable|rate"):
        read_audio(path)


def test_many_channels_are_read_in_small_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.wav", np.zeros((9_000, 500)))
    asked: list[int] = []
    read = soundfile.SoundFile.read

    def counted(self: soundfile.SoundFile, frames: int = -1, **options: object) -> np.ndarray:
        asked.append(frames * self.channels)
        return read(self, frames, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    assert len(read_audio(path)) == 9_000
    assert max(asked) <= 1 << 20


def test_one_channel(tmp_path: Path) -> None:
    left, right = tone(1.0), tone(1.0, pitch_hz=880.0)
    path = write(tmp_path / "x.wav", np.stack([left, right], axis=1), subtype="FLOAT")
    np.testing.assert_allclose(read_audio(path, channel=1), right, atol=1e-6)
    np.testing.assert_allclose(read_audio(path), (left + right) / 2, atol=1e-6)
    blocks = list(iter_audio_blocks(path, block_seconds=0.25, channel=0))
    np.testing.assert_allclose(np.concatenate(blocks), left, atol=1e-6)
    message = "it has 2 channels, counted from 0, and so no channel 2"
    with pytest.raises(UnreadableAudioError, match=message) as caught:
        read_audio(path, channel=2)
    assert caught.value.reason == "no such channel"


@pytest.mark.parametrize("through_link", [False, True])
def test_pipes_sockets_and_devices_are_never_opened(tmp_path: Path, through_link: bool) -> None:
    folder = tmp_path / "hidden"
    folder.mkdir()
    os.mkfifo(folder / "pipe.wav")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(folder, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{here}/socket.wav" if os.path.isdir("/proc/self/fd") else "socket.wav")
        os.close(here)
    kinds = {"pipe.wav": "named pipe", "socket.wav": "socket"}
    paths = {folder / name: kind for name, kind in kinds.items()}
    if through_link:
        for path in list(paths):
            (tmp_path / path.name).symlink_to(path)
        paths = {tmp_path / path.name: kind for path, kind in paths.items()}
        (tmp_path / "zero.wav").symlink_to("/dev/zero")
        paths[tmp_path / "zero.wav"] = "device"
    # Opening the pipe would wait for a writer for ever; this one lets the test fail instead of hanging.
    rescue = threading.Timer(20.0, lambda: os.close(os.open(folder / "pipe.wav", os.O_RDWR)))
    rescue.start()
    for path, kind in paths.items():
        with pytest.raises(UnreadableAudioError, match=f"it is not a file, but a {kind}"):
            read_audio(path)
        with pytest.raises(UnreadableAudioError, match=kind):
            list(iter_audio_blocks(path, block_seconds=1.0))
    good = write(tmp_path / "good" / "good.wav", tone(1.0))
    scan = scan_audio([AudioSource(path=path) for path in [*paths, good]], min_seconds=0.5)
    assert [clip.path for clip in scan.clips] == [good]
    rescue.cancel()
    assert scan.skipped == {"unreadable": len(paths)}


def test_names_that_are_not_utf8_and_long_names(tmp_path: Path) -> None:
    wave = tone(1.0)
    names = [os.fsdecode(b"\xff\xe9\x80.wav"), "x" * 251 + ".wav", "\N{SNOWMAN}.wav"]
    for name in names:
        soundfile.write(os.fsencode(tmp_path / name), wave, RATE_HZ, format="WAV")
    scan = scan_audio(find_audio([tmp_path]), min_seconds=0.5)
    assert sorted(clip.path.name for clip in scan.clips) == sorted(names)
    assert scan.skipped == {} and len(scan.fingerprint) == 64
    for name in names:
        np.testing.assert_allclose(read_audio(tmp_path / name), wave, atol=1e-4)


class _Failing(io.BytesIO):
    """Content that cannot be read behind a place in it."""

    error: Exception
    limit: int

    def readinto(self, buffer: Any) -> int:
        if self.tell() + len(buffer) > self.limit:
            raise self.error
        return super().readinto(buffer)


class _FailingRecording(Recording):
    """A recording of which only the beginning can be read."""

    def __init__(self, content: bytes, limit: int, error: Exception) -> None:
        self.content, self.limit, self.error = content, limit, error

    def __fspath__(self) -> str:
        return "somewhere/x.wav"

    def open(self) -> BinaryIO:
        content = _Failing(self.content)
        content.limit, content.error = self.limit, self.error
        return content


@pytest.mark.parametrize("limit", [10, 20_000])
def test_errors_within_the_decoders_callbacks_are_not_lost(tmp_path: Path, limit: int) -> None:
    content = write(tmp_path / "x.wav", tone(4.0)).read_bytes()
    with pytest.raises(UnreadableAudioError, match=r"^`somewhere/x.wav` .*: the disk is gone\.$"):
        read_audio(_FailingRecording(content, limit, OSError("the disk is gone")))
    # An error that ends a run does so.
    with pytest.raises(SlimvoxError, match=r"^the network is gone$") as caught:
        read_audio(_FailingRecording(content, limit, SlimvoxError("the network is gone")))
    assert not isinstance(caught.value, UnreadableAudioError)
