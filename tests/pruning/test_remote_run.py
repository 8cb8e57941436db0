"""A run on shards behind a server whose network is cut in the middle."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

import slimvox
from audio.test_shards import write_shard
from file_server import FileServer, serve_files
from slimvox.audio import index_audio, remote

pytest.importorskip("aiohttp")

CUT_SECONDS = 3.0


def cut_and_mend(server: FileServer, happened: list[float]) -> None:
    """Wait for the cut, and end it after a while."""
    while not server.is_cut:
        time.sleep(0.01)
    happened.append(time.monotonic())
    time.sleep(CUT_SECONDS)
    server.is_cut = False


@pytest.mark.slow
def test_a_run_survives_a_cut_network_and_ends_with_the_same_weights(
    teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {path.name: path.read_bytes() for path in sorted(speech.iterdir())}
    for number in range(2):
        write_shard(tmp_path / "s" / f"{number}.tar", dict(list(files.items())[number::2]))
    monkeypatch.setenv("SLIMVOX_CACHE", str(tmp_path / "cache"))
    # Nothing stays on the disk, so that each clip is fetched when it is needed.
    monkeypatch.setenv("SLIMVOX_BLOCK_CACHE_GB", "1e-9")
    monkeypatch.setattr(remote, "BLOCK_BYTES", 8192)
    monkeypatch.setattr(remote, "_LONGEST_WAIT_SECONDS", 0.2)
    overrides = {"data.seconds_per_batch": 2.0, "data.min_seconds": 0.5, "data.max_seconds": 1.0}
    overrides |= {"prune.steps": 4, "finish.steps": 3, "target.keep": 0.5}

    def pruned(source: str, name: str) -> bytes:
        result = slimvox.prune(teacher, source, tmp_path / name, overrides=overrides, device="cpu")
        assert result.skipped_files == {}
        return (tmp_path / name / "model.safetensors").read_bytes()

    local = pruned(str(tmp_path / "s"), "local")
    with serve_files(tmp_path / "s") as server:
        source = f"{server.url}/{{0..1}}.tar"
        index_audio([source], min_seconds=0.5)
        server.cut_after = len(server.requests) + 10
        happened: list[float] = []
        mender = threading.Thread(target=cut_and_mend, args=(server, happened), daemon=True)
        mender.start()
        assert pruned(source, "remote") == local
        assert happened and time.monotonic() - happened[0] > CUT_SECONDS
        assert not server.is_cut
