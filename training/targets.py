"""Decodes the pre-training audio and computes its targets: the states of Whisper's encoder, and their clusters.

    python training/targets.py --whisper part1.whl part2.whl --audio DATA --out TARGETS

DATA holds one folder per set, each with a `manifest.tsv` (columns `id` and, where a set has one, `split`) and
files `ID.opus` at 16 kHz. Of speechocean762 (`so762`) only the training split is read: its test split measures the
teacher.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans

from corpus import FIELD, HOP
from slimvox.audio import read_audio
from whisper import WhisperStates, load_encoder

SETS = ("so762", "libri", "s2i", "wake", "arabic")
SHORTEST_FRAMES = 10
CLUSTERS = 500
CLUSTERING_FRAMES = 200_000


def utterances(audio: Path) -> list[tuple[str, Path]]:
    """Set and file of everything to train on, in the manifests' order."""
    found = []
    for name in SETS:
        with (audio / name / "manifest.tsv").open() as file:
            for row in csv.DictReader(file, delimiter="\t"):
                if name != "so762" or row["split"] == "train":
                    found.append((name, audio / name / f"{row['id']}.opus"))
    return found


def compute_states(whisper: WhisperStates, audio: Path, out: Path) -> None:
    """Write `wave.i16`, `last.f16`, `mid.f16` and `index.tsv`."""
    began, seconds, start, frame = time.monotonic(), 0.0, 0, 0
    with (
        (out / "wave.i16").open("wb") as wave,
        (out / "last.f16").open("wb") as last,
        (out / "mid.f16").open("wb") as mid,
        (out / "index.tsv").open("w") as index,
    ):
        index.write("set\tid\tstart\tsamples\tframe\tframes\n")
        for number, (name, path) in enumerate(utterances(audio)):
            samples = read_audio(path)
            frames = (len(samples) - FIELD) // HOP + 1
            if frames < SHORTEST_FRAMES:
                continue
            last_states, mid_states = whisper(samples, frames)
            quantised = np.clip(np.round(samples * 32768), -32768, 32767).astype(np.int16)
            wave.write(quantised.tobytes())
            last.write(last_states.astype(np.float16).tobytes())
            mid.write(mid_states.astype(np.float16).tobytes())
            index.write(f"{name}\t{path.stem}\t{start}\t{len(quantised)}\t{frame}\t{frames}\n")
            start, frame, seconds = start + len(quantised), frame + frames, seconds + len(quantised) / 16_000
            if number % 200 == 0:
                rate = seconds / (time.monotonic() - began)
                print(f"{number} utterances, {seconds / 3600:.2f} h, {rate:.0f}x real time", flush=True)


def cluster(out: Path, name: str) -> None:
    """Write `NAME_units.npy`, the cluster of every frame, and `NAME_stats.npz`, mean and deviation per dimension."""
    states = np.memmap(out / f"{name}.f16", np.float16, "r").reshape(-1, 512)
    chosen = np.sort(
        np.random.default_rng(0).choice(len(states), min(len(states), CLUSTERING_FRAMES), replace=False)
    )
    sample = np.asarray(states[chosen], np.float32)
    mean, deviation = sample.mean(0), sample.std(0)
    np.savez(out / f"{name}_stats.npz", mean=mean, std=deviation)
    kmeans = MiniBatchKMeans(CLUSTERS, batch_size=8192, n_init=1, max_iter=60, random_state=0)
    kmeans.fit((sample - mean) / deviation)
    units = np.empty(len(states), np.int16)
    for first in range(0, len(states), 50_000):
        part = np.asarray(states[first : first + 50_000], np.float32)
        units[first : first + 50_000] = kmeans.predict((part - mean) / deviation)
    np.save(out / f"{name}_units.npy", units)
    shares = np.bincount(units, minlength=CLUSTERS) / len(units)
    entropy = -(shares * np.log(np.maximum(shares, 1e-12))).sum()
    print(f"{name}: {CLUSTERS} clusters, perplexity {np.exp(entropy):.0f}", flush=True)


def main() -> None:
    """Compute the targets."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--whisper", type=Path, nargs=2, required=True, help="the two wheels with its halves")
    parser.add_argument("--audio", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    compute_states(WhisperStates(load_encoder(arguments.whisper)), arguments.audio, arguments.out)
    for name in ("last", "mid"):
        cluster(arguments.out, name)


if __name__ == "__main__":
    main()
