"""Audio at `s3://`, against a server on this machine that speaks its protocol (`pip install ".[test-remote]"`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio.audio_files import tone, write
from audio.test_shards import write_shard
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
from slimvox.audio.remote import RemoteFile
from slimvox.util.errors import SlimvoxError

s3fs = pytest.importorskip("s3fs")
moto = pytest.importorskip("moto.server")


@dataclass
class Bucket:
    """A bucket, and the same files in a folder."""

    folder: Path
    client: Any

    def upload(self, name: str) -> None:
        """Upload a file of the folder."""
        self.client.put_object(Bucket="speech", Key=name, Body=(self.folder / name).read_bytes())


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """`s3://speech/s/0.tar` and `1.tar`, two shards of three clips; the block cache is empty, the pauses short."""
    import boto3

    monkeypatch.setenv("SLIMVOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "BLOCK_BYTES", 50_000)
    monkeypatch.setattr(remote, "_FIRST_WAIT_SECONDS", 0.02)
    monkeypatch.setattr(remote, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in {
        "ACCESS_KEY_ID": "x",
        "SECRET_ACCESS_KEY": "x",
        "DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        made = Bucket(tmp_path / "here", boto3.client("s3"))
        made.client.create_bucket(Bucket="speech")
        for shard in (0, 1):
            clips = {
                f"{shard}{n}.wav": write(tmp_path / "x.wav", tone(2.0, pitch_hz=200 + 40 * n)).read_bytes()
                for n in range(3)
            }
            write_shard(made.folder / "s" / f"{shard}.tar", clips)
            made.upload(f"s/{shard}.tar")
        s3fs.S3FileSystem.clear_instance_cache()
        yield made
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        server.stop()


def test_shards_in_a_bucket_are_as_local_ones(bucket: Bucket) -> None:
    here = scan_audio(find_audio([bucket.folder / "s"]), min_seconds=1.0)
    for source in ("s3://speech/s/{0..1}.tar", "s3://speech/s/", "s3://speech/s"):
        there = index_audio([source], min_seconds=1.0)
        assert there.fingerprint == here.fingerprint
        for one, other in zip(here.clips, there.clips, strict=True):
            np.testing.assert_array_equal(read_audio(one.path), read_audio(other.path))
    plan = BatchPlan(here.clip_seconds, seconds_per_batch=4.0, min_seconds=1.0, max_seconds=2.0)
    with AudioBatches(here.clips, plan) as local, AudioBatches(there.clips, plan) as distant:
        for _ in range(4):
            np.testing.assert_array_equal(next(local).waveforms, next(distant).waveforms)
    assert str(there.clips[4].path) == "s3://speech/s/1.tar/11.wav"


def test_files_and_manifests_of_a_bucket(bucket: Bucket) -> None:
    write(bucket.folder / "d" / "a.wav", tone(3.0))
    (bucket.folder / "m.csv").write_text("path,start,end\nd/a.wav,1,2.5\ns3://speech/d/a.wav,,\n")
    for name in ("d/a.wav", "m.csv"):
        bucket.upload(name)
    found = [clip.seconds for clip in index_audio(["s3://speech/m.csv"], min_seconds=1.0).clips]
    assert found == [1.5, 3.0]
    assert [str(clip.path) for clip in index_audio(["s3://speech/d/"], min_seconds=1.0).clips] == [
        "s3://speech/d/a.wav"
    ]


def test_an_object_that_was_replaced_is_read_again(bucket: Bucket) -> None:
    url = "s3://speech/s/0.tar"
    assert len(index_audio([url], min_seconds=1.0).clips) == 3
    size = (bucket.folder / "s" / "0.tar").stat().st_size
    clips = {
        f"0{n}.wav": write(bucket.folder / "x.wav", tone(2.0, pitch_hz=900)).read_bytes() for n in range(3)
    }
    write_shard(bucket.folder / "s" / "0.tar", clips)
    assert (bucket.folder / "s" / "0.tar").stat().st_size == size
    bucket.upload("s/0.tar")
    (clip, *_) = index_audio([url], min_seconds=1.0).clips
    np.testing.assert_array_equal(read_audio(clip.path), read_audio(bucket.folder / "x.wav"))


def test_what_is_not_there_or_not_allowed_is_one_sentence(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in ("s3://speech/none.tar", "s3://nobody/a.tar"):
        with pytest.raises(
            SlimvoxError, match=rf"^The shard `{url}` cannot be read: its server has no such file"
        ):
            find_audio([url])
    with pytest.raises(UnreadableAudioError, match="no such file") as caught:
        read_audio(RemoteFile("s3://speech/none.wav"))
    assert caught.value.reason == "missing"
    with pytest.raises(SlimvoxError, match=r"`s3://speech/empty/`.*holds no audio"):
        find_audio(["s3://speech/empty/"])
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(
        SlimvoxError, match=r"its server refuses it \(.*\): check the address and the credentials"
    ):
        find_audio(["s3://speech/s/0.tar"])


def test_a_server_that_is_gone_is_waited_for(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(
        SlimvoxError, match=r"gave no answer for 0\.2 s \(.*\): run the same command again when"
    ):
        find_audio(["s3://speech/s/0.tar"])
