"""Headers to durations."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from audio.audio_files import FORMATS, tone, write
from slimvox.audio import AudioSource, av_file, find_audio, scan_audio
from slimvox.audio.skips import WARNINGS_PER_REASON, SkipCounter
from slimvox.util.errors import SlimvoxError


def test_durations_of_every_format(tmp_path: Path) -> None:
    for extension in FORMATS:
        write(tmp_path / f"x{extension}", tone(1.5, 48_000), 48_000)
    scan = scan_audio(find_audio([tmp_path]), min_seconds=1.0)
    assert len(scan.clips) == len(FORMATS)
    np.testing.assert_allclose(scan.clip_seconds, 1.5, atol=1e-3)
    assert scan.total_seconds == pytest.approx(1.5 * len(FORMATS), abs=0.01)
    assert scan.skipped == {}


def test_stretches_end_where_the_file_does(tmp_path: Path) -> None:
    path = write(tmp_path / "x.wav", tone(4.0))
    sources = [
        AudioSource(path=path, offset_seconds=1.0, seconds=2.0),
        AudioSource(path=path, offset_seconds=2.5, seconds=2.4),
        AudioSource(path=path, offset_seconds=3.5),
        AudioSource(path=path, offset_seconds=5.0),
        AudioSource(path=path, offset_seconds=6.0),
    ]
    scan = scan_audio(sources, min_seconds=1.0)
    assert [(clip.offset_seconds, clip.seconds) for clip in scan.clips] == [(1.0, 2.0), (2.5, 1.5)]
    assert scan.skipped == {"too short": 1, "empty": 2}


@pytest.mark.parametrize("seconds", [9.0, 64_000.0])
def test_stretch_that_ends_far_behind_the_file_is_not_the_rest_of_it(tmp_path: Path, seconds: float) -> None:
    path = write(tmp_path / "x.wav", tone(4.0))
    sources = [AudioSource(path=path), AudioSource(path=path, offset_seconds=0.0, seconds=seconds)]
    scan = scan_audio(sources, min_seconds=1.0)
    assert [clip.seconds for clip in scan.clips] == [4.0]
    assert scan.skipped == {"truncated": 1}
    assert f"before the end of the stretch at {seconds:.2f} s" in scan.skipped_files[0].detail


def test_a_channel_is_measured_and_fingerprinted(tmp_path: Path) -> None:
    path = write(tmp_path / "x.wav", tone(2.0, channels=2))
    sources = [AudioSource(path=path, channel=channel) for channel in (None, 0, 1, 2)]
    scan = scan_audio(sources, min_seconds=1.0)
    assert [clip.channel for clip in scan.clips] == [None, 0, 1]
    assert scan.skipped == {"no such channel": 1}
    each = [scan_audio([source], min_seconds=1.0).fingerprint for source in sources[:3]]
    assert len(set(each)) == 3


def test_files_that_are_not_decoded_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av_file, "find_spec", lambda _: None)
    write(tmp_path / "a.wav", tone(2.0))
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0 ftypM4A " + bytes(5_000))
    (tmp_path / "b.wma").write_bytes(b"text" * 500)
    # An extension says little: what libsndfile can read is read.
    (tmp_path / "c.mp4").write_bytes((tmp_path / "a.wav").read_bytes())
    scan = scan_audio(find_audio([tmp_path]), min_seconds=1.0)
    assert [clip.path.name for clip in scan.clips] == ["a.wav", "c.mp4"]
    assert scan.skipped == {"unsupported format": 2}
    assert "convert it" in scan.skipped_files[0].detail


def test_rows_are_clips_repeated_rows_or_skipped_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "a.wav", tone(4.0, channels=2))
    rows = ["a.wav,0,2,", "a.wav,0,3,", "a.wav,0,3,1", "a.wav,0,3,1", "a.wav,3.5,,", "a.wav,7,,", "a.wav,8,,"]
    (tmp_path / "m.csv").write_text("path,start,duration,channel\n" + "\n".join(rows) + "\n")
    with caplog.at_level(logging.WARNING, logger="slimvox.audio"):
        sources = find_audio([tmp_path / "m.csv"])
        skips = SkipCounter()
        skips.add(Path("earlier.wav"), "missing", "it does not exist")
        scan = scan_audio(sources, min_seconds=1.0, skips=skips)
    assert "`m.csv`: 1 of 7 rows or files repeat audio that was named before" in caplog.text
    assert [(clip.seconds, clip.channel) for clip in scan.clips] == [(2.0, None), (3.0, None), (3.0, 1)]
    assert scan.skipped == {"too short": 1, "empty": 2}
    assert skips.counts == {"missing": 1, "too short": 1, "empty": 2}
    assert 1 + len(scan.clips) + sum(scan.skipped.values()) == len(rows)


def test_each_bad_file_is_counted_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "good.wav", tone(2.0))
    write(tmp_path / "short.wav", tone(0.5))
    write(tmp_path / "none.wav", np.zeros(0))
    (tmp_path / "zero.wav").write_bytes(b"")
    (tmp_path / "text.mp3").write_bytes(b"text" * 500)
    (tmp_path / "dangling.wav").symlink_to(tmp_path / "nowhere.wav")
    progress: list[tuple[int, int]] = []
    with caplog.at_level(logging.WARNING, logger="slimvox.audio"):
        sources = find_audio([tmp_path])
        scan = scan_audio(
            sources, min_seconds=1.0, on_progress=lambda done, all_: progress.append((done, all_))
        )
    assert [clip.path.name for clip in scan.clips] == ["good.wav"]
    assert scan.skipped == {"too short": 1, "empty": 2, "unreadable": 1, "missing": 1}
    assert {file.path.name for file in scan.skipped_files} == {
        *("short.wav", "none.wav", "zero.wav", "text.mp3", "dangling.wav"),
    }
    for file in scan.skipped_files:
        assert str(file.path) in caplog.text
    assert progress[-1] == (6, 6)


def test_nothing_usable_says_why(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"{number}.wav", tone(0.5))
    (tmp_path / "text.mp3").write_bytes(b"text" * 500)
    with pytest.raises(
        SlimvoxError, match=r"None of the 4 .*3 too short, such as `.*0\.wav`.*1 unreadable, such"
    ):
        scan_audio(find_audio([tmp_path]), min_seconds=1.0)
    with pytest.raises(SlimvoxError, match="there are none"):
        scan_audio([], min_seconds=1.0)


def test_fingerprint_tells_other_audio_but_not_another_folder(tmp_path: Path) -> None:
    for folder, seconds in (("a", 2.0), ("b", 2.0), ("c", 2.5)):
        write(tmp_path / folder / "x.wav", tone(seconds))
    one, same, other = (scan_audio(find_audio([tmp_path / name]), min_seconds=1.0) for name in "abc")
    assert one.fingerprint == same.fingerprint
    assert one.fingerprint != other.fingerprint


def test_many_bad_files_do_not_drown_the_log(caplog: pytest.LogCaptureFixture) -> None:
    skips = SkipCounter()
    with caplog.at_level(logging.WARNING, logger="slimvox.audio"):
        for number in range(WARNINGS_PER_REASON + 10):
            for _ in range(2):
                skips.add(Path(f"{number}.wav"), "missing", "it does not exist")
    assert skips.counts == {"missing": WARNINGS_PER_REASON + 10}
    assert len(caplog.records) == WARNINGS_PER_REASON + 1
