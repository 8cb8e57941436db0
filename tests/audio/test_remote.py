"""Audio behind URLs, against a server on this machine."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from audio.audio_files import tone, write
from audio.test_shards import write_shard
from file_server import FileServer, serve_files
from slimvox.audio import (
    AudioBatches,
    BatchPlan,
    UnreadableAudioError,
    find_audio,
    index_audio,
    read_audio,
    remote,
    scan_audio,
)
from slimvox.audio.remote import RemoteFile, is_remote
from slimvox.util.errors import SlimvoxError

pytest.importorskip("aiohttp")

BLOCK_BYTES = 50_000


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Two shards of three clips each, `s/0.tar` and `s/1.tar`; the block cache is empty and the pauses short."""
    monkeypatch.setenv("SLIMVOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "BLOCK_BYTES", BLOCK_BYTES)
    monkeypatch.setattr(remote, "_FIRST_WAIT_SECONDS", 0.02)
    monkeypatch.setattr(remote, "_LONGEST_WAIT_SECONDS", 0.1)
    for shard in (0, 1):
        clips = {
            f"{shard}{number}.wav": write(
                tmp_path / "x.wav", tone(2.0, pitch_hz=200 + 40 * number + 10 * shard)
            ).read_bytes()
            for number in range(3)
        }
        write_shard(tmp_path / "served" / "s" / f"{shard}.tar", clips)
    with serve_files(tmp_path / "served") as files:
        yield files


def test_urls() -> None:
    assert is_remote("s3://bucket/x") and is_remote("https://host/x")
    assert not any(map(is_remote, ("hf:name", "a/b", "c:\\x", "a b://c", "://x")))
    file = RemoteFile("s3://bucket/a/b.jsonl.gz")
    assert (file.name, file.suffix, file.suffixes) == ("b.jsonl.gz", ".gz", [".jsonl", ".gz"])
    assert file.parent / "c.wav" == RemoteFile("s3://bucket/a/c.wav")


def test_remote_shards_are_as_local_ones(server: FileServer) -> None:
    here = scan_audio(find_audio([server.folder / "s"]), min_seconds=1.0)
    for source in (f"{server.url}/s/{{0..1}}.tar", f"{server.url}/s/"):
        there = index_audio([source], min_seconds=1.0)
        assert there.fingerprint == here.fingerprint
        for one, other in zip(here.clips, there.clips, strict=True):
            np.testing.assert_array_equal(read_audio(one.path), read_audio(other.path))
    assert str(there.clips[4].path) == f"{server.url}/s/1.tar/11.wav"


def test_blocks_are_fetched_once(server: FileServer) -> None:
    url = f"{server.url}/s/0.tar"
    index_audio([url], min_seconds=1.0)
    clips = index_audio([url], min_seconds=1.0).clips
    for _ in range(2):
        for clip in clips:
            read_audio(clip.path)
    fetched = server.fetched()
    # The last of the five holds nothing but the mark of the shard's end.
    assert sorted(fetched) == sorted(
        f"GET s/0.tar {start}-{start + BLOCK_BYTES - 1}" for start in range(0, 200_000, BLOCK_BYTES)
    )
    # Other content has other blocks.
    time.sleep(0.01)
    write_shard(server.folder / "s" / "0.tar", {"new.wav": (server.folder.parent / "x.wav").read_bytes()})
    assert [clip.path.name for clip in index_audio([url], min_seconds=1.0).clips] == ["new.wav"]
    assert len(server.fetched()) > len(fetched)


def test_of_many_threads_one_fetches_a_block(server: FileServer) -> None:
    barrier = threading.Barrier(8)

    def read(_: int) -> bytes:
        with RemoteFile(f"{server.url}/s/0.tar").open() as file:
            barrier.wait()
            return file.read(100)

    with ThreadPoolExecutor(8) as executor:
        assert len(set(executor.map(read, range(8)))) == 1
    assert len(server.fetched()) == 1


def test_only_what_is_read_is_fetched(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "BLOCK_BYTES", 4096)
    write(server.folder / "long.wav", tone(60.0))
    read_audio(RemoteFile(f"{server.url}/long.wav"), offset_seconds=30.0, seconds=1.0)
    assert len(server.fetched()) < 40


def test_manifests_and_files_behind_urls(server: FileServer) -> None:
    write(server.folder / "d" / "a.wav", tone(3.0))
    rows = [
        {"audio_filepath": "d/a.wav", "offset": 1, "duration": 2},
        {"audio_filepath": f"{server.url}/d/a.wav"},
    ]
    (server.folder / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for _ in range(2):
        scan = index_audio([f"{server.url}/m.jsonl", f"{server.url}/d/a.wav"], min_seconds=1.0)
        assert [(str(c.path), c.seconds) for c in scan.clips] == [
            *((f"{server.url}/d/a.wav", 2.0), (f"{server.url}/d/a.wav", 3.0)),
        ]


def test_a_cut_network_is_waited_for(server: FileServer, caplog: pytest.LogCaptureFixture) -> None:
    url = f"{server.url}/s/{{0..1}}.tar"
    scan = index_audio([url], min_seconds=1.0)
    plan = BatchPlan(scan.clip_seconds, seconds_per_batch=4.0, min_seconds=1.0, max_seconds=2.0)
    with AudioBatches(scan.clips, plan) as batches:
        wanted = [next(batches).waveforms for _ in range(6)]
    for block in (server.folder.parent / "cache" / "blocks").rglob("*-*"):
        block.unlink()
    server.cut_after = len(server.requests) + 3
    threading.Timer(0.5, lambda: setattr(server, "is_cut", False)).start()
    with caplog.at_level(logging.WARNING), AudioBatches(scan.clips, plan) as batches:
        for each in wanted:
            np.testing.assert_array_equal(next(batches).waveforms, each)
        assert not batches.skips.files
    assert "cannot be reached (" in caplog.text


@pytest.mark.parametrize("status", [403, 401, 404, 410])
def test_refusals_are_final(server: FileServer, status: int) -> None:
    server.status = status
    reason = (
        r"its server has no such file \(404\)"
        if status == 404
        else rf"its server refuses it \(status {status}\): check .*"
    )
    with pytest.raises(
        SlimvoxError, match=rf"^The shard `{server.url}/s/0\.tar` cannot be read: {reason}\.$"
    ):
        find_audio([f"{server.url}/s/0.tar"])
    with pytest.raises(UnreadableAudioError, match=reason) as caught:
        read_audio(RemoteFile(f"{server.url}/a.wav"))
    assert caught.value.reason == ("missing" if status == 404 else "unreadable")
    assert len(server.requests) <= 4


def test_a_server_without_ranges_is_refused(server: FileServer) -> None:
    server.has_ranges = False
    with pytest.raises(
        SlimvoxError, match=r"does not answer requests for ranges of bytes: download it first\.$"
    ):
        find_audio([f"{server.url}/s/0.tar"])


def test_patience_ends_with_one_sentence(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PATIENCE_SECONDS", 0.3)
    scan = index_audio([f"{server.url}/s/0.tar"], min_seconds=1.0)
    for block in (server.folder.parent / "cache" / "blocks").rglob("*-*"):
        block.unlink()
    server.is_cut = True
    plan = BatchPlan(scan.clip_seconds, seconds_per_batch=4.0, min_seconds=1.0, max_seconds=2.0)
    with (
        AudioBatches(scan.clips, plan) as batches,
        pytest.raises(
            SlimvoxError, match=r"gave no answer for 0\.3 s \(.*\): run the same command again when it"
        ),
    ):
        next(batches)


def test_a_server_that_is_not_there_is_waited_for_and_the_reason_given(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(remote, "PATIENCE_SECONDS", 0.1)
    url = "http://127.0.0.1:1/a.tar"
    with pytest.raises(
        SlimvoxError, match=r"gave no answer for 0\.1 s \(Cannot connect to host 127\.0\.0\.1:1"
    ):
        find_audio([url])
    assert f"`{url}` cannot be reached (Cannot connect to host 127.0.0.1:1" in caplog.text
    assert "is tried again for 0.1 s" in caplog.text


def test_errors_of_servers_are_tried_again(server: FileServer) -> None:
    server.status = 503
    threading.Timer(0.3, lambda: setattr(server, "status", 200)).start()
    assert len(find_audio([f"{server.url}/s/0.tar"])) == 3


def test_old_blocks_give_way(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIMVOX_BLOCK_CACHE_GB", str(2.5 * BLOCK_BYTES / 2**30))
    scan = index_audio([f"{server.url}/s/{{0..1}}.tar"], min_seconds=1.0)
    for clip in scan.clips:
        assert len(read_audio(clip.path)) == 32_000
    kept = [path.stat().st_size for path in (server.folder.parent / "cache" / "blocks").rglob("*-*")]
    assert 0 < sum(kept) <= 2.5 * BLOCK_BYTES


def test_protocols_that_are_not_known(tmp_path: Path) -> None:
    with pytest.raises(SlimvoxError, match=r"fsspec has no protocol `gopher`\.$"):
        find_audio(["gopher://host/a.tar"])
