"""Files that libsndfile does not decode, by PyAV."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from audio.audio_files import tone, write
from audio.test_shards import write_shard
from slimvox.audio import UnreadableAudioError, find_audio, iter_audio_blocks, read_audio, scan_audio
from slimvox.audio import av_file as av_module

av = pytest.importorskip("av")

CODECS = {".m4a": "aac", ".webm": "libopus", ".aac": "aac", ".wma": "wmav2"}


def encode(path: Path, wave: np.ndarray, rate_hz: int) -> Path:
    """Write a wave (samples, channels)."""
    layout = "stereo" if wave.ndim == 2 else "mono"
    samples = np.ascontiguousarray(np.atleast_2d(wave.T), dtype=np.float32)
    with av.open(str(path), "w", format="adts" if path.suffix == ".aac" else None) as file:
        stream = file.add_stream(CODECS[path.suffix], rate=rate_hz, layout=layout)
        resampler = av.AudioResampler(format=stream.format, layout=layout, rate=rate_hz, frame_size=1024)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, Fraction(1, rate_hz)
        stream.bit_rate = 128_000
        for part in [*resampler.resample(frame), None]:
            for packet in stream.encode(part):
                file.mux(packet)
    return path


def lag(found: np.ndarray, wanted: np.ndarray) -> int:
    """Samples by which `found` comes later."""
    spectrum = np.fft.rfft(found, 1 << 17) * np.conj(np.fft.rfft(wanted, 1 << 17))
    best = int(np.fft.irfft(spectrum).argmax())
    return best if best < 1 << 16 else best - (1 << 17)


@pytest.mark.parametrize(
    ("suffix", "rate_hz"),
    [(".m4a", 44_100), (".m4a", 16_000), (".webm", 48_000), (".aac", 16_000), (".wma", 44_100)],
)
def test_files_are_decoded_and_measured(tmp_path: Path, suffix: str, rate_hz: int) -> None:
    chirp = 0.5 * np.sin(2 * np.pi * np.cumsum(np.linspace(200, 2000, 4 * rate_hz)) / rate_hz)
    wanted = read_audio(write(tmp_path / "x.wav", chirp, rate_hz))
    (tmp_path / "x.wav").unlink()
    encode(tmp_path / f"x{suffix}", np.stack([chirp, chirp / 2], axis=1), rate_hz)
    (clip,) = scan_audio(find_audio([tmp_path]), min_seconds=1.0).clips
    whole = read_audio(clip.path, channel=0)
    assert clip.seconds == pytest.approx(4.0, abs=0.15)
    assert abs(len(whole) - clip.seconds * 16_000) < 400
    # Raw AAC says nothing of the delay of its encoder, and WMA not enough.
    assert abs(lag(whole, wanted)) <= (2 if suffix in (".m4a", ".webm") else 2600)
    assert np.std(read_audio(clip.path)) == pytest.approx(0.75 * np.std(whole), rel=0.05)
    part = read_audio(clip.path, offset_seconds=1.5, seconds=1.0, channel=0)
    inner = slice(200, -200)
    np.testing.assert_allclose(part[inner], whole[24_000:40_000][inner], atol=0.02)
    blocks = list(iter_audio_blocks(clip.path, block_seconds=0.5, channel=0))
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_a_member_of_a_shard(tmp_path: Path) -> None:
    content = encode(tmp_path / "x.m4a", tone(2.0), 16_000).read_bytes()
    shard = write_shard(tmp_path / "a.tar", {"x.m4a": content})
    (clip,) = scan_audio(find_audio([shard]), min_seconds=1.0).clips
    np.testing.assert_array_equal(read_audio(clip.path), read_audio(tmp_path / "x.m4a"))


@pytest.mark.parametrize("kind", ["text", "cut", "no sound"])
def test_files_that_are_damaged_are_named(tmp_path: Path, kind: str) -> None:
    path = encode(tmp_path / "x.m4a", tone(2.0), 16_000)
    if kind == "text":
        path.write_bytes(b"text" * 500)
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:3000])
    else:
        with av.open(str(path), "w") as file:
            stream = file.add_stream("mpeg4", rate=5)
            stream.width = stream.height = 32
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), dtype=np.uint8))
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                file.mux(packet)
    with pytest.raises(UnreadableAudioError, match=r"`.*x\.m4a` cannot be read as audio: .*\.$"):
        read_audio(path)


def test_without_pyav_the_message_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "x.m4a", tone(2.0), 16_000)
    monkeypatch.setattr(av_module, "find_spec", lambda _: None)
    with pytest.raises(UnreadableAudioError, match=r'pip install "slimvox\[av\]"') as caught:
        read_audio(path)
    assert caught.value.reason == "unsupported format"
