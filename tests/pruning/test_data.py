"""Audio of a run: what is held out, and what it takes of memory."""

from __future__ import annotations

import logging
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from audio.audio_files import tone, write, write_tones
from slimvox.audio import AudioClip, SkipCounter, read_audio
from slimvox.pruning.data import HeldOutWaveforms, RunAudio, gather_audio
from slimvox.pruning.settings import DataSettings
from slimvox.util.errors import SlimvoxError

SETTINGS = DataSettings(min_seconds=1.0, max_seconds=2.0)


def test_files_that_another_process_listed_are_looked_for(tmp_path: Path) -> None:
    files = write_tones(tmp_path, [2.0] * 4)
    audio = gather_audio([tmp_path], SETTINGS, 0)
    audio.check_files()
    files[0].write_bytes(files[0].read_bytes()[:-2])
    with pytest.raises(SlimvoxError, match="put the same audio in the same place on each machine"):
        audio.check_files()
    files[0].unlink()
    with pytest.raises(SlimvoxError, match=r"000\.wav` is not the file"):
        audio.check_files()


def held_out(clips: list[AudioClip], skips: SkipCounter | None = None, **options: int) -> HeldOutWaveforms:
    return HeldOutWaveforms(
        clips, min_seconds=1.0, max_seconds=2.0, skips=SkipCounter() if skips is None else skips, **options
    )


@pytest.mark.parametrize("cache_bytes", [0, 150_000, 1 << 30])
def test_held_out_audio_is_the_same_however_much_of_it_is_kept(tmp_path: Path, cache_bytes: int) -> None:
    files = write_tones(tmp_path, [3.0, 1.5, 2.0])
    clips = [AudioClip(path=path, offset_seconds=0.5, seconds=1.0 + n / 2) for n, path in enumerate(files)]
    waveforms = held_out(clips, cache_bytes=cache_bytes)
    for _ in range(2):
        for clip, waveform in zip(clips, waveforms, strict=True):
            wanted = read_audio(clip.path, offset_seconds=0.5, seconds=min(clip.seconds, 2.0))
            np.testing.assert_array_equal(waveform[0].numpy(), wanted)
            waveform.zero_()


def test_held_out_audio_is_not_all_in_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "x.wav", tone(20.0))
    clips = [AudioClip(path=path, offset_seconds=n / 16, seconds=2.0) for n in range(200)]
    limit = 1 << 20
    tracemalloc.start()
    try:
        assert sum(waveform.numel() for waveform in held_out(clips, cache_bytes=limit)) == 200 * 32_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit + 4 * 2**20 < 200 * 32_000 * 4


def test_held_out_files_that_went_bad_are_counted_once(tmp_path: Path) -> None:
    files = write_tones(tmp_path, [2.0, 2.0])
    skips = SkipCounter()
    waveforms = held_out([AudioClip(path=path, offset_seconds=0.0, seconds=2.0) for path in files], skips)
    files[0].unlink()
    assert [len(list(waveforms)) for _ in range(2)] == [1, 1]
    assert skips.counts == {"missing": 1}


def test_the_channel_of_a_manifest_reaches_training_and_held_out_audio(tmp_path: Path) -> None:
    left, right = tone(2.0), tone(2.0, pitch_hz=880.0)
    write(tmp_path / "x.wav", np.stack([left, right], axis=1), subtype="FLOAT")
    (tmp_path / "m.csv").write_text("path,channel\nx.wav,1\n")
    audio = gather_audio([tmp_path / "m.csv"], SETTINGS, 0, [tmp_path / "m.csv"])
    (waveform,) = audio.held_out_waveforms()
    np.testing.assert_allclose(waveform[0].numpy(), right, atol=1e-6)
    with audio.batches(stage="prune", start=0, process=0, processes=1) as batches:
        crop = next(batches).waveforms[0].numpy()
    spectrum = np.abs(np.fft.rfft(crop))
    assert spectrum.argmax() * 16_000 / len(crop) == pytest.approx(880.0, abs=2.0)


def test_crops_are_padded_with_silence_that_counts_as_no_audio(tmp_path: Path) -> None:
    write_tones(tmp_path, [1.0, 1.5, 3.0])
    settings = replace(SETTINGS, pad_to_seconds=1.8, seconds_per_batch=2.0)
    audio = gather_audio([tmp_path], settings, 0, [tmp_path])
    with audio.batches(stage="prune", start=0, process=0, processes=1) as batches:
        drawn = [next(batches) for _ in range(6)]
    for waveforms, lengths in (
        ([batch.waveforms for batch in drawn], [round(16_000 * batch.seconds) for batch in drawn]),
        (list(audio.held_out_waveforms()), [16_000, 24_000, 32_000]),
    ):
        assert {*lengths} == {16_000, 24_000, 32_000}
        for waveform, length in zip(waveforms, lengths, strict=True):
            assert waveform.shape == (1, max(length, 28_800)) and not waveform[:, length:].any()
            assert waveform[:, length - 100 : length].any()


def test_each_skipped_file_is_named_once_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_tones(tmp_path / "train", [2.0, 2.0])
    write_tones(tmp_path / "test", [2.0])
    for folder in ("train", "test"):
        (tmp_path / folder / "bad.mp3").write_bytes(b"text" * 500)
    with caplog.at_level(logging.WARNING, logger="slimvox.audio"):
        audio = gather_audio([tmp_path / "train"], SETTINGS, 0, [tmp_path / "test"])
    named = [record.getMessage() for record in caplog.records]
    assert audio.named == len(audio.training) + len(audio.held_out) + sum(audio.skips.counts.values()) == 5
    assert len(named) == 2 and audio.skips.counts == {"unreadable": 2}
    assert [sum(f"{folder}/bad.mp3" in message for message in named) for folder in ("train", "test")] == [
        1,
        1,
    ]


def training_paths(audio: RunAudio) -> set[str]:
    return {str(clip.path) for clip in audio.training}


def test_held_out_audio_inside_the_training_audio_is_left_out_of_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_tones(tmp_path / folder, [2.0] * 4)
    (tmp_path / "link").symlink_to(tmp_path / "b")
    for held_out in ("b", "link"):
        caplog.clear()
        audio = gather_audio([tmp_path / "a", tmp_path / "b"], SETTINGS, 0, [tmp_path / held_out])
        # Files of one name in another folder are other audio.
        assert training_paths(audio) == {str(path) for path in (tmp_path / "a").iterdir()}
        assert len(audio.held_out) == 4 and audio.sources.tolist() == [0] * 4
        assert "4 of 8 clips to train on contain held-out audio and are left out" in caplog.text


def test_stretches_that_overlap_held_out_ones_are_left_out_of_training(tmp_path: Path) -> None:
    write(tmp_path / "x.wav", tone(20.0))
    (tmp_path / "train.csv").write_text("path,start,end\nx.wav,0,2\nx.wav,2,4\nx.wav,3.5,5.5\nx.wav,6,8\n")
    (tmp_path / "test.csv").write_text("path,start,end\nx.wav,4,6\n")
    audio = gather_audio([tmp_path / "train.csv"], SETTINGS, 0, [tmp_path / "test.csv"])
    assert [clip.offset_seconds for clip in audio.training] == [0, 2, 6]


def test_a_file_that_is_named_twice_is_not_both_held_out_and_trained_on(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    write_tones(tmp_path / "audio", [2.0] * 20)
    names = "".join(f"audio/{number:03}.wav,0.5,2\n" for number in range(20))
    (tmp_path / "again.csv").write_text(f"path,start,end\n{names}")
    settings = replace(SETTINGS, held_out_seconds=4.0)
    audio = gather_audio([tmp_path / "audio", tmp_path / "again.csv"], settings, 0)
    assert len(audio.held_out) > 0
    assert not {str(clip.path) for clip in audio.held_out} & training_paths(audio)


def test_training_audio_that_is_all_held_out_is_used_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_tones(tmp_path, [2.0] * 4)
    audio = gather_audio([tmp_path], SETTINGS, 0, [tmp_path])
    assert len(audio.training) == len(audio.held_out) == 4
    assert "nothing else is there to train on" in caplog.text
