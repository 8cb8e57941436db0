"""Tar archives read in place, and the manifests that name their members."""

from __future__ import annotations

import gzip
import io
import json
import logging
import tarfile
from pathlib import Path

import numpy as np
import pytest

from audio.audio_files import tone, write
from slimvox.audio import AudioBatches, BatchPlan, find_audio, index_audio, read_audio, scan_audio
from slimvox.util.errors import SlimvoxError


def write_shard(path: Path, files: dict[str, bytes], **options: int) -> Path:
    """A tar archive of these members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def tones(folder: Path, *seconds: float, suffix: str = ".flac") -> list[bytes]:
    paths = [folder / f"{number}{suffix}" for number in range(len(seconds))]
    for number, (path, length) in enumerate(zip(paths, seconds, strict=True)):
        write(path, tone(length, pitch_hz=200.0 + 20 * number))
    return [path.read_bytes() for path in paths]


def test_members_are_clips_as_the_files_were(tmp_path: Path) -> None:
    for suffix in (".flac", ".wav", ".mp3", ".ogg", ".opus"):
        tones(tmp_path / "files", 2.0, 3.0, suffix=suffix)
    files = sorted((tmp_path / "files").iterdir())
    long_name = "deep/" * 30
    shard = write_shard(
        tmp_path / "shards" / "a-000.tar",
        {
            **{f"{long_name}{path.name}": path.read_bytes() for path in files},
            "0.json": b"{}",
            "./.hidden.wav": b"",
        },
    )
    scan = index_audio([shard], min_seconds=1.0)
    assert [clip.path.name for clip in scan.clips] == [path.name for path in files]
    for clip, path in zip(scan.clips, files, strict=True):
        assert str(clip.path) == f"{shard}/{long_name}{path.name}"
        np.testing.assert_array_equal(read_audio(clip.path), read_audio(path))
    plan = BatchPlan(scan.clip_seconds, seconds_per_batch=10.0, min_seconds=1.0, max_seconds=3.0)
    with AudioBatches(scan.clips, plan) as batches:
        assert next(batches).seconds > 3.0
        assert not batches.skips.files
    # From the cache, too.
    again = index_audio([shard], min_seconds=1.0)
    assert [clip.path for clip in again.clips] == [clip.path for clip in scan.clips]


def test_many_shards_as_a_folder_with_braces_and_as_a_list(tmp_path: Path) -> None:
    one, two, three = tones(tmp_path / "files", 2.0, 3.0, 4.0)
    folder = tmp_path / "shards"
    for number, content in enumerate((one, two, three), start=9):
        write_shard(folder / f"a-{number:03}.tar", {f"{number}.flac": content})
    (tmp_path / "data.list").write_text("".join(f"shards/a-{number:03}.tar\n" for number in (9, 10, 11)))
    for source in (folder, f"{folder}/a-{{009..011}}.tar", tmp_path / "data.list"):
        assert [c.seconds for c in index_audio([source], min_seconds=1.0).clips] == [2.0, 3.0, 4.0]
    with pytest.raises(SlimvoxError, match=r"a-012\.tar` does not exist"):
        find_audio([f"{folder}/a-{{009..012}}.tar"])


def test_lhotse_shar_is_its_recordings(tmp_path: Path) -> None:
    one, two = tones(tmp_path / "files", 2.0, 3.0)
    folder = tmp_path / "shar"
    write_shard(folder / "recording.000000.tar", {"cut-1.flac": one, "cut-1.json": b"{}"})
    write_shard(folder / "target_recording.000000.tar", {"cut-1.flac": two, "cut-1.json": b"{}"})
    cut = {"id": "cut-1", "type": "MonoCut", "start": 0, "duration": 2.0, "channel": 0}
    cut["recording"] = {"id": "cut-1", "sources": [{"type": "shar", "channels": [0], "source": ""}]}
    with gzip.open(folder / "cuts.000000.jsonl.gz", "wt") as file:
        file.write(json.dumps(cut) + "\n")
    assert [clip.seconds for clip in index_audio([folder], min_seconds=1.0).clips] == [2.0]
    with pytest.raises(
        SlimvoxError, match=r"archive of lhotse Shar: give the folder of its recording\.\*\.tar\.$"
    ):
        find_audio([folder / "cuts.000000.jsonl.gz"])


def test_a_manifest_of_nemo_names_members(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one, two = tones(tmp_path / "files", 2.0, 3.0)
    write_shard(tmp_path / "audio_0.tar", {"x.flac": one})
    write_shard(tmp_path / "audio_1.tar", {"y.flac": two})
    rows = [("x.flac", 0, 0.0, 2.0), ("y.flac", 1, 1.0, 2.0), ("gone.flac", 1, 0.0, 2.0)]
    (tmp_path / "tarred.json").write_text(
        "\n".join(
            json.dumps({"audio_filepath": name, "shard_id": shard, "offset": offset, "duration": duration})
            for name, shard, offset, duration in rows
        )
    )
    for _ in range(2):
        scan = index_audio([tmp_path / "tarred.json"], min_seconds=1.0)
        assert [(c.path.name, c.offset_seconds, c.seconds) for c in scan.clips] == [
            *(("x.flac", 0.0, 2.0), ("y.flac", 1.0, 2.0)),
        ]
        assert scan.skipped == {"missing": 1}
        assert scan.skipped_files[0].detail == "its shard has no such member"


def test_wenet_lists_and_common_voice(tmp_path: Path) -> None:
    tones(tmp_path / "clips", 2.0, 3.0)
    rows = [
        {"key": "a", "wav": "clips/0.flac", "txt": "x"},
        {"key": "b", "wav": "clips/1.flac", "start": 1, "end": 3},
    ]
    (tmp_path / "data.list").write_text("\n".join(map(json.dumps, rows)))
    found = find_audio([tmp_path / "data.list"])
    assert [(s.path.name, s.offset_seconds, s.seconds) for s in found] == [
        ("0.flac", 0.0, None),
        ("1.flac", 1.0, 2.0),
    ]
    (tmp_path / "validated.tsv").write_text('client_id\tpath\tsentence\nme\t0.flac\t"Yes\nme\t1.flac\tno\n')
    scan = scan_audio(find_audio([tmp_path / "validated.tsv"]), min_seconds=1.0)
    assert [str(clip.path) for clip in scan.clips] == [str(tmp_path / "clips" / f"{n}.flac") for n in (0, 1)]


def test_a_truncated_shard_gives_what_is_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    contents = tones(tmp_path / "files", 2.0, 2.0, 2.0, suffix=".wav")
    shard = write_shard(tmp_path / "a.tar", {f"{n}.wav": content for n, content in enumerate(contents)})
    shard.write_bytes(shard.read_bytes()[: 512 * 3 + 64_044 * 2 + 1000])
    with caplog.at_level(logging.WARNING, logger="slimvox.audio"):
        scan = scan_audio(find_audio([shard]), min_seconds=1.0)
    assert [clip.path.name for clip in scan.clips] == ["0.wav", "1.wav"]
    assert scan.skipped == {"unreadable": 1}
    assert scan.skipped_files[0].detail == "its shard ends within it"
    assert f"The shard `{shard}` is truncated: it ends after 3 files." in caplog.text


def test_a_shard_that_ends_between_two_members_is_truncated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shard = write_shard(
        tmp_path / "a.tar", dict.fromkeys(("0.flac", "1.flac"), tones(tmp_path / "files", 2.0)[0])
    )
    with tarfile.open(shard) as archive:
        second = archive.getmembers()[1].offset
    shard.write_bytes(shard.read_bytes()[:second])
    with caplog.at_level(logging.WARNING, logger="slimvox.audio"):
        assert len(find_audio([shard])) == 1
    assert "is truncated: it ends after 1 files." in caplog.text


@pytest.mark.parametrize("kind", ["empty", "no bytes", "text", "packed", "folder"])
def test_shards_that_are_of_no_use_say_so(tmp_path: Path, kind: str) -> None:
    shard = write_shard(tmp_path / "a.tar", {})
    message = {
        "empty": r"The shard `.*a\.tar` holds no audio: none of its members ends in \.wav, .*\.$",
        "no bytes": r"The shard `.*a\.tar` cannot be read: it is not a tar archive \(empty file\)\.$",
        "text": r"The shard `.*a\.tar` cannot be read: it is not a tar archive \(.*\)\.$",
        "packed": r"The shard `.*a\.tar` is compressed, .*: unpack it to a \.tar\.$",
        "folder": r"The shard `.*a\.tar` holds no audio",
    }[kind]
    if kind in ("no bytes", "text"):
        shard.write_bytes(b"text" * 500 if kind == "text" else b"")
    if kind == "packed":
        shard.write_bytes(gzip.compress(shard.read_bytes()))
    with pytest.raises(SlimvoxError, match=f"^{message}"):
        find_audio([tmp_path if kind == "folder" else shard])


def test_an_empty_shard_among_others_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_shard(tmp_path / "a.tar", {})
    write_shard(tmp_path / "b.tar", {"x.flac": tones(tmp_path / ".files", 2.0)[0]})
    with caplog.at_level(logging.WARNING, logger="slimvox.audio"):
        assert len(find_audio([tmp_path])) == 1
    assert f"The shard `{tmp_path / 'a.tar'}` holds no audio." in caplog.text


def test_a_shard_that_changed_is_read_again(tmp_path: Path) -> None:
    one, two = tones(tmp_path / "files", 2.0, 3.0)
    shard = write_shard(tmp_path / "a.tar", {"x.flac": one})
    assert [clip.seconds for clip in index_audio([shard], min_seconds=1.0).clips] == [2.0]
    write_shard(shard, {"first.flac": two, "x.flac": two})
    assert [clip.seconds for clip in index_audio([shard], min_seconds=1.0).clips] == [3.0, 3.0]
