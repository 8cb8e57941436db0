"""Audio measured once: the cache of the index, and the table behind it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio.audio_files import tone, write, write_tones
from slimvox.audio import AudioClip, AudioScan, AudioSource, find_audio, index_audio, scan_audio
from slimvox.audio import scan as scan_module
from slimvox.audio.table import AudioTable, as_table, joined
from slimvox.util.errors import SlimvoxError


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose headers are read; the cache is empty."""
    names: list[str] = []
    lock = threading.Lock()
    true = scan_module.measure

    def measure(path: Any) -> Any:
        with lock:
            names.append(path.name)
        return true(path)

    monkeypatch.setattr(scan_module, "measure", measure)
    monkeypatch.setenv("SLIMVOX_CACHE", str(tmp_path / "cache"))
    return names


def settled(folder: Path) -> Path:
    """The folder, all of its files as if written a minute ago."""
    before = time.time() - 60.0
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (before, before))
    return folder


def index(*sources: Any, min_seconds: float = 1.0) -> AudioScan:
    return index_audio(sources, min_seconds=min_seconds)


def described(scan: AudioScan) -> list[tuple[str, float, float, int | None]]:
    return [(str(clip.path), clip.offset_seconds, clip.seconds, clip.channel) for clip in scan.clips]


def test_headers_are_read_once(tmp_path: Path, measured: list[str]) -> None:
    corpus = tmp_path / "corpus"
    write_tones(corpus, [2.0, 0.5, 3.0])
    (corpus / "text.mp3").write_bytes(b"text" * 500)
    settled(corpus)
    first = index(corpus)
    assert sorted(measured) == ["000.wav", "001.wav", "002.wav", "text.mp3"]
    measured.clear()
    again = index(corpus)
    # What cannot be used is tried again: its permissions may have changed.
    assert measured == ["text.mp3"]
    assert (
        described(again) == described(first) == described(scan_audio(find_audio([corpus]), min_seconds=1.0))
    )
    assert again.fingerprint == first.fingerprint
    assert again.skipped == first.skipped == {"too short": 1, "unreadable": 1}
    assert (again.named, len(index(corpus, min_seconds=0.4).clips)) == (4, 3)


def test_only_what_changed_is_measured_again(tmp_path: Path, measured: list[str]) -> None:
    corpus = tmp_path / "corpus"
    write_tones(corpus / "a", [2.0, 2.0])
    write_tones(corpus / "b", [2.0])
    index(settled(corpus))
    measured.clear()
    # In place: the folder's time stays.
    write(corpus / "a" / "001.wav", tone(4.0))
    os.utime(corpus / "a" / "001.wav", (time.time() - 30, time.time() - 30))
    assert [clip.seconds for clip in index(corpus).clips] == [2.0, 4.0, 2.0]
    assert measured == ["001.wav"]
    measured.clear()
    write(corpus / "a" / "002.wav", tone(1.5))
    (corpus / "b" / "000.wav").unlink()
    assert [clip.seconds for clip in index(corpus).clips] == [2.0, 4.0, 1.5]
    assert measured == ["002.wav"]


def test_files_written_just_now_are_not_trusted(tmp_path: Path, measured: list[str]) -> None:
    corpus = tmp_path / "corpus"
    write_tones(corpus, [2.0])
    soon = time.time_ns() + 10**9
    os.utime(corpus / "000.wav", ns=(soon, soon))
    index(corpus)
    measured.clear()
    assert [clip.seconds for clip in index(corpus).clips] == [2.0]
    assert measured == ["000.wav"]


def test_a_manifest_is_read_again_when_it_changes(tmp_path: Path, measured: list[str]) -> None:
    corpus = tmp_path / "corpus"
    write_tones(corpus, [4.0, 3.0])
    manifest = corpus / "m.csv"
    manifest.write_text(
        "path,start,duration,channel\n000.wav,0,2,\n000.wav,1,2,0\n001.wav,,,\n001.wav,,,\nno.wav,,,\n"
    )
    settled(corpus)
    first = index(manifest)
    assert sorted(measured) == ["000.wav", "001.wav", "no.wav"]
    assert [(c.offset_seconds, c.seconds, c.channel) for c in first.clips] == [
        *((0.0, 2.0, None), (1.0, 2.0, 0), (0.0, 3.0, None)),
    ]
    measured.clear()
    assert described(index(manifest)) == described(first)
    assert measured == ["no.wav"]
    manifest.write_text("path\n001.wav\n")
    assert [clip.seconds for clip in index(manifest).clips] == [3.0]


def test_an_id_finds_a_file_that_came_later(tmp_path: Path, measured: list[str]) -> None:
    corpus = tmp_path / "corpus"
    write_tones(corpus, [2.0])
    (corpus / "m.tsv").write_text("id\n000\nlater\n")
    settled(corpus)
    assert index(corpus / "m.tsv").skipped == {"missing": 1}
    write(corpus / "later.wav", tone(2.0))
    assert len(index(corpus / "m.tsv").clips) == 2


@pytest.mark.parametrize("damage", ["short", "text", "another folder"])
def test_a_damaged_cache_is_made_anew(
    tmp_path: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    corpus = tmp_path / "corpus"
    write_tones(corpus, [2.0])
    first = index(settled(corpus))
    (kept,) = (tmp_path / "cache" / "audio-index").glob("*.npz")
    if damage == "another folder":
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("SLIMVOX_CACHE", str(tmp_path / "file" / "cache"))
    else:
        kept.write_bytes(kept.read_bytes()[:-500] if damage == "short" else b"text")
    measured.clear()
    for _ in range(2):
        assert described(index(corpus)) == described(first)
    assert measured == ["000.wav"] * (2 if damage == "another folder" else 1)


def test_of_several_processes_one_measures(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    write_tones(corpus, [1.0 + 0.01 * number for number in range(100)])
    settled(corpus)
    code = (
        "import sys, time, slimvox.audio.scan as s\n"
        "true, count = s.measure, 0\n"
        "def measure(path):\n"
        "    global count; count += 1; time.sleep(0.01); return true(path)\n"
        "s.measure = measure\n"
        "from slimvox.audio import index_audio\n"
        f"scan = index_audio([{str(corpus)!r}], min_seconds=1.0, threads=1)\n"
        "print(count, scan.fingerprint)\n"
    )
    environment = {**os.environ, "SLIMVOX_CACHE": str(tmp_path / "cache")}
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True)
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=120)[0].split() for process in processes]
    assert sorted(int(count) for count, _ in answers) == [0, 100]
    assert answers[0][1] == answers[1][1]


def table_of(*rows: tuple[str, float, float | None, int | None]) -> AudioTable[AudioSource]:
    return as_table(
        [
            AudioSource(path=Path(name), offset_seconds=offset, seconds=seconds, channel=channel)
            for name, offset, seconds, channel in rows
        ]
    )


def test_joined_tables_hold_each_stretch_once() -> None:
    rows = [("/a/x.wav", 0.0, None, None), ("/a/y.wav", 0.0, 2.0, None), ("/a/x.wav", 0.0, None, None)]
    others = [("/b/x.wav", 0.0, None, None), ("/a/y.wav", 0.0, 2.0, 1), ("/a/../a/x.wav", 0.0, None, None)]
    one, other = table_of(*rows), table_of(*others)
    assert (len(one), one.named, len(one.files)) == (2, 3, 2)
    table, origin = joined([one, other])
    assert [(str(s.path), s.offset_seconds, s.seconds, s.channel) for s in table] == [
        *rows[:2],
        *others[:2],
    ]
    assert origin.tolist() == [0, 0, 1, 1]
    assert len(table.files) == 3


def test_names_that_are_not_text_come_back(tmp_path: Path, measured: list[str]) -> None:
    corpus = tmp_path / "corpus"
    name = os.fsdecode(b"caf\xe9 \xff.wav")
    write(corpus / "x.wav", tone(2.0)).rename(corpus / name)
    settled(corpus)
    for _ in range(2):
        (clip,) = index(corpus).clips
        assert isinstance(clip, AudioClip)
        assert clip.path == corpus / name


def test_a_table_takes_few_bytes_per_clip() -> None:
    table = table_of(*[(f"/corpus/speaker-{n // 100}/{n:08}.flac", 0.0, None, None) for n in range(1000)])
    columns = [value for holder in (table, table.files) for value in vars(holder).values()]
    assert sum(value.nbytes for value in columns if isinstance(value, np.ndarray)) < 120 * len(table)


def test_a_source_with_nothing_in_it_says_so(tmp_path: Path, measured: list[str]) -> None:
    (tmp_path / "corpus").mkdir()
    with pytest.raises(SlimvoxError, match="holds no audio"):
        index(tmp_path / "corpus")
