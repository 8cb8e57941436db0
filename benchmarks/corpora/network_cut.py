"""Prune on tar shards behind a local HTTP server whose network is cut in the middle, and compare with local shards.

    python benchmarks/corpora/network_cut.py --steps 40 --cut-seconds 20

The room for blocks on the disk is smaller than the shards, so that training fetches audio all the time. Prints how long
each run took, the requests, and whether both runs ended with the same weights.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path

from slimvox.embedded import audio_files

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from file_server import FileServer, serve_files

SHARDS, COPIES = 3, 60
CACHE_BYTES = 12 * 2**20


def make_shards(folder: Path) -> int:
    """Shards of the embedded speech, each clip several times; returns their bytes."""
    folder.mkdir()
    files = audio_files("train")
    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard}.tar", "w") as archive:
            for copy in range(COPIES):
                for file in files[shard::SHARDS]:
                    archive.add(file, f"{copy}-{Path(file).name}")
    return sum(path.stat().st_size for path in folder.iterdir())


def prune(shards: str, room: Path, name: str, steps: int) -> tuple[float, str]:
    """Run the command; returns its seconds and the hash of the weights."""
    environment = {
        **os.environ,
        "SLIMVOX_CACHE": str(room / f"cache-{name}"),
        "SLIMVOX_BLOCK_CACHE_GB": str(CACHE_BYTES / 2**30),
    }
    command = [sys.executable, "-m", "slimvox", "prune", "embedded", shards, "--out", str(room / name)]
    command += ["--max-steps", str(steps), "--set", "data.seconds_per_batch=16", "--device", "cpu"]
    start = time.perf_counter()
    with (room / f"{name}.log").open("w") as log:
        subprocess.run(command, env=environment, check=True, stdout=log, stderr=subprocess.STDOUT)
    digest = hashlib.sha256((room / name / "model.safetensors").read_bytes()).hexdigest()[:16]
    return time.perf_counter() - start, digest


def steps_done(run: Path) -> int:
    """Number of steps that the log of a run has."""
    log = run / "run" / "log.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--cut-seconds", type=float, default=20.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        size = make_shards(room / "shards")
        print(
            f"{SHARDS} shards, {size / 1e6:.0f} MB; room for blocks on the disk: {CACHE_BYTES / 1e6:.0f} MB"
        )
        seconds, local = prune(str(room / "shards"), room, "local", options.steps)
        print(f"local shards: {seconds:.0f} s, weights {local}")
        with serve_files(room / "shards") as server:
            port = int(server.url.rpartition(":")[2])
            results: list[tuple[float, str]] = []
            names = f"{server.url}/{{0..{SHARDS - 1}}}.tar"
            run = threading.Thread(target=lambda: results.append(prune(names, room, "remote", options.steps)))
            run.start()
            while steps_done(room / "remote") < options.steps // 3 and run.is_alive():
                time.sleep(0.2)
            before = cut(server)
        step = steps_done(room / "remote")
        time.sleep(options.cut_seconds)
        print(f"cut for {options.cut_seconds:g} s after step {step} and {before} requests", end="; ")
        print(f"step {steps_done(room / 'remote')} when the network came back")
        with serve_files(room / "shards", port) as server:
            run.join()
            print(f"{len(server.fetched())} requests afterwards")
        seconds, remote = results[0]
        print(
            f"remote shards: {seconds:.0f} s, weights {remote}: {'the same' if remote == local else 'OTHERS'}"
        )
        print("".join(line for line in (room / "remote.log").open() if "again" in line or "waited" in line))


def cut(server: FileServer) -> int:
    """Close all connections; returns the number of requests until then."""
    server.is_cut = True
    return len(server.fetched())


if __name__ == "__main__":
    main()
