"""Time and memory of the index of audio: built once, opened again, and the plan of batches made from it.

    python benchmarks/corpora/index.py --clips 10000 300000 --layout files shards segments

`files` is a folder in LibriSpeech's layout (hard links to a few files of 3 s), `shards` are tar archives of 1,000 clips
each, `segments` a manifest (JSON lines) of stretches of 10 s of files of an hour. Each measurement is a process of its
own; memory is the growth of its resident set over what the imports take, and its peak. CPU seconds are those of all
threads: on a machine that others use too, the seconds that pass say little. With `--without-headers` the files are
listed and their sizes and times are read, but their headers are not: the index is as large, and opening it is the same
work. All that is made is deleted again.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

CLIPS_PER_FOLDER, CLIPS_PER_SHARD, SEGMENTS_PER_FILE = 100, 1000, 360
LINKS_PER_FILE = 30_000
"""File systems limit the number of hard links to a file (ext4: 65,000)."""


def flac(seconds: float) -> bytes:
    """A file of quiet noise at 16 kHz."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).normal(0.0, 1e-4, round(16_000 * seconds))
    soundfile.write(buffer, noise, 16_000, format="FLAC")
    return buffer.getvalue()


def make_files(folder: Path, clips: int) -> Path:
    """LibriSpeech's layout: speaker/chapter/speaker-chapter-number.flac."""
    content, original = flac(3.0), folder
    for number in range(clips):
        speaker, chapter = divmod(number // CLIPS_PER_FOLDER, 10)
        place = folder / "corpus" / f"{speaker}" / f"{chapter}"
        if number % CLIPS_PER_FOLDER == 0:
            place.mkdir(parents=True)
        if number % LINKS_PER_FILE == 0:
            original = folder / f"original-{number}"
            original.write_bytes(content)
        os.link(original, place / f"{speaker}-{chapter}-{number:08}.flac")
    return folder / "corpus"


def make_shards(folder: Path, clips: int) -> Path:
    """WebDataset's layout: a clip and its text, side by side."""
    content = flac(0.1)
    (folder / "shards").mkdir()
    for shard in range(-(-clips // CLIPS_PER_SHARD)):
        with tarfile.open(folder / "shards" / f"train-{shard:06}.tar", "w") as archive:
            for number in range(shard * CLIPS_PER_SHARD, min((shard + 1) * CLIPS_PER_SHARD, clips)):
                for name, part in ((f"{number:09}.flac", content), (f"{number:09}.txt", b"some words")):
                    member = tarfile.TarInfo(name)
                    member.size = len(part)
                    archive.addfile(member, io.BytesIO(part))
    return folder / "shards"


def make_segments(folder: Path, clips: int) -> Path:
    """NeMo's layout: one object a line, stretches of long files."""
    content = flac(3600.0)
    original = folder / "original"
    original.write_bytes(content)
    with (folder / "segments.jsonl").open("w") as file:
        for number in range(clips):
            recording, part = divmod(number, SEGMENTS_PER_FILE)
            if part == 0:
                os.link(original, folder / f"recording-{recording:05}.flac")
            row = {
                "audio_filepath": f"recording-{recording:05}.flac",
                "offset": 10.0 * part,
                "duration": 10.0,
            }
            file.write(json.dumps({**row, "text": "some words"}) + "\n")
    return folder / "segments.jsonl"


LAYOUTS = {"files": make_files, "shards": make_shards, "segments": make_segments}


def resident_mb(field: str) -> float:
    """Field of this process's memory in MB: `VmRSS` is now, `VmHWM` the peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


def measure(corpus: str, without_headers: bool) -> dict[str, float]:
    """Index a corpus in this process, and plan the first epoch of batches."""
    from slimvox.audio import BatchPlan, index_audio, scan
    from slimvox.audio.decode import AudioFormat

    if without_headers:
        scan.measure = lambda path: AudioFormat(3.0, 16_000, 1)
    before = resident_mb("VmRSS")
    start, cpu_start = time.perf_counter(), time.process_time()
    scan = index_audio([corpus], min_seconds=0.05)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    found = {"clips": len(scan.clips), "seconds": seconds, "cpu": cpu, "mb": resident_mb("VmRSS") - before}
    found["peak_mb"] = resident_mb("VmHWM") - before
    start = time.perf_counter()
    assert scan.fingerprint
    found["fingerprint_seconds"] = time.perf_counter() - start
    start = time.perf_counter()
    plan = BatchPlan(scan.clip_seconds, seconds_per_batch=160.0, min_seconds=0.05, max_seconds=10.0)
    for crop in plan.batch(0):
        assert scan.clips[crop.clip].seconds > 0
    return {**found, "plan_seconds": time.perf_counter() - start, "plan_mb": resident_mb("VmRSS") - before}


def measured_apart(corpus: Path, cache: Path, *options: str) -> dict[str, float]:
    """The same in a process of its own."""
    environment = {**os.environ, "SLIMVOX_CACHE": str(cache)}
    command = [sys.executable, __file__, "--measure", str(corpus), *options]
    answer = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    figures: dict[str, float] = json.loads(answer.splitlines()[-1])
    return figures


def run(layout: str, clips: int, folder: Path | None, reopenings: int, *options: str) -> dict[str, Any]:
    """One row of the table."""
    with tempfile.TemporaryDirectory(dir=folder) as room:
        start = time.perf_counter()
        corpus = LAYOUTS[layout](Path(room), clips)
        print(f"made {clips} clips ({layout}) in {time.perf_counter() - start:.0f} s", file=sys.stderr)
        cache = Path(room) / "cache"
        built = measured_apart(corpus, cache, *options)
        again = [measured_apart(corpus, cache) for _ in range(reopenings)]
        size = sum(path.stat().st_size for path in cache.rglob("*.npz")) / 1e6
        shutil.rmtree(corpus) if corpus.is_dir() else corpus.unlink()
    median = {name: float(np.median([each[name] for each in again])) for name in built}
    assert built["clips"] == clips and median["clips"] == clips
    return {"layout": layout, "clips": clips, "built": built, "opened again": median, "index_mb": size}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, nargs="+", default=[10_000])
    parser.add_argument("--layout", nargs="+", choices=LAYOUTS, default=["files"])
    parser.add_argument(
        "--folder", type=Path, help="where the corpora are made; by default the temporary folder"
    )
    parser.add_argument("--reopenings", type=int, default=3)
    parser.add_argument("--without-headers", action="store_true")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.without_headers)))
        return
    print(
        "| layout | clips | built: s (CPU s) | opened: s (CPU s) | MB | peak, built / opened (MB) | index (MB) |"
    )
    print("|---|---|---|---|---|---|---|")
    flags = ["--without-headers"] if options.without_headers else []
    for layout in options.layout:
        for clips in options.clips:
            row = run(layout, clips, options.folder, options.reopenings, *flags)
            built, again = row["built"], row["opened again"]
            print(
                f"| {layout} | {clips:,} | {built['seconds']:.1f} ({built['cpu']:.1f}) |"
                f" {again['seconds']:.2f} ({again['cpu']:.2f}) | {again['mb']:.0f} |"
                f" {built['peak_mb']:.0f} / {again['peak_mb']:.0f} | {row['index_mb']:.1f} |",
                flush=True,
            )
            print(json.dumps(row), file=sys.stderr)


if __name__ == "__main__":
    main()
