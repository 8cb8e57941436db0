"""The pre-training audio: decoded once into one file, drawn in rows of one length.

    python training/corpus.py --audio DATA --out CORPUS

DATA holds one folder per set, each with a `manifest.tsv` (columns `id` and, where a set has one, `split`) and files
`ID.opus` at 16 kHz. Of speechocean762 (`so762`) only the training split is read: its test split measures the teacher.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from slimvox.audio import SAMPLE_RATE_HZ, read_audio

SETS = ("so762", "libri", "s2i", "wake", "arabic")
HOP, FIELD = 320, 400
"""Samples from frame to frame, and under one frame."""
SHORTEST = 9 * HOP + FIELD
"""Samples of the shortest utterance that is used: 10 frames."""
HELD_OUT = 64
"""Utterances that are not trained on."""


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One row of the index."""

    set: str
    id: str
    start: int
    """First sample in `wave.i16`."""
    samples: int


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of one length, filled with utterances one after another; B rows of S samples."""

    waveforms: Tensor
    """(B, S) float32."""
    utterance: Tensor
    """Utterance that each sample belongs to: (B, S) int64, a row of the index."""
    original: Tensor
    """True for samples at their original speed, where the voice is the speaker's own: (B, S) bool."""
    gain: Tensor
    """Factor of the amplitude: (B, S) float32."""


class Corpus:
    """The decoded audio, on one device.

    Args:
        directory: folder that this script wrote.
        device: where the rows are made; the audio takes 2 bytes per sample there.
        seed: seed of the order and of the speeds.
    """

    def __init__(self, directory: Path, device: torch.device, seed: int = 0) -> None:
        rows = read_index(directory)
        self.table = np.array([[row.start, row.samples] for row in rows])
        chosen = np.random.default_rng(7).permutation(len(rows))
        self.held_out, self.training = chosen[:HELD_OUT], chosen[HELD_OUT:]
        self.waveform = torch.from_numpy(np.fromfile(directory / "wave.i16", np.int16)).to(device)
        self.device = device
        self._random = np.random.default_rng(seed)
        self._queue: list[int] = []
        self._current: tuple[int, float, float] | None = None
        self._begin = 0.0

    @property
    def hours(self) -> float:
        """Hours of training audio."""
        return float(self.table[self.training, 1].sum()) / SAMPLE_RATE_HZ / 3600

    def rows(self, count: int, samples: int) -> Rows:
        """The next `count` rows of `samples` samples.

        The utterances follow one another in random order, each of them once in a pass; one that does not fit into a
        row goes on in the next. Half of them are played at .85 to 1.18 times their speed, as resampling does it (pitch
        and formants change too), all of them at .5 to 1.5 times their amplitude.
        """
        pieces = list(self._pieces(count * samples))
        lengths = torch.tensor([piece[0] for piece in pieces], device=self.device)
        table = torch.tensor([piece[1:] for piece in pieces], device=self.device, dtype=torch.float64)
        which = torch.repeat_interleave(lengths, output_size=count * samples)
        inside = torch.arange(count * samples, device=self.device) - (lengths.cumsum(0) - lengths)[which]
        utterance, first, speed, gain = (column[which] for column in table.T)
        gain = gain.float()
        return Rows(
            waveforms=(_interpolated(self.waveform, first + inside * speed) * gain).view(count, samples),
            utterance=utterance.long().view(count, samples),
            original=(speed == 1).view(count, samples),
            gain=gain.view(count, samples),
        )

    def amplitudes(self) -> Tensor:
        """Root mean square of each utterance, as a row of the index: float32."""
        rows = [self.waveform[start : start + samples].float() for start, samples in self.table.tolist()]
        return torch.stack([row.square().mean().sqrt() / 32768 for row in rows])

    def held_out_rows(self, seconds: float = 10.0) -> Iterator[Tensor]:
        """Waveforms (1, samples) of the held-out utterances, at most `seconds` of each."""
        for start, samples in self.table[self.held_out]:
            yield (
                self.waveform[start : start + min(samples, int(seconds * SAMPLE_RATE_HZ))].float() / 32768
            ).unsqueeze(0)

    def _pieces(self, wanted: int) -> Iterator[tuple[int, int, float, float, float]]:
        """(output samples, utterance, first input sample, speed, gain) of the pieces that fill `wanted` samples."""
        while wanted:
            if self._current is None:
                self._queue = self._queue or self._random.permutation(self.training).tolist()
                changed = self._random.random() < 0.5
                speed = float(self._random.uniform(0.85, 1.18)) if changed else 1.0
                self._current = (self._queue.pop(), speed, float(self._random.uniform(0.5, 1.5)))
                self._begin = 1.0
            utterance, speed, gain = self._current
            start, samples = self.table[utterance].tolist()
            available = int((samples - 3 - self._begin) / speed)
            length = min(wanted, available)
            yield length, utterance, start + self._begin, speed, gain
            wanted -= length
            self._begin += length * speed
            if length == available:
                self._current = None


def read_index(directory: Path) -> list[Utterance]:
    """The rows of `index.tsv`."""
    with (directory / "index.tsv").open() as file:
        return [
            Utterance(set=row["set"], id=row["id"], start=int(row["start"]), samples=int(row["samples"]))
            for row in csv.DictReader(file, delimiter="\t")
        ]


def _interpolated(waveform: Tensor, position: Tensor) -> Tensor:
    """Values of `waveform` (int16) between its samples, by Catmull and Rom's cubic; float32 within -1 and 1."""
    index = position.floor().long()
    t = (position - index).float()
    a, b, c, d = (waveform[index + offset].float() for offset in (-1, 0, 1, 2))
    cubic = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return cubic / 32768


def utterances(audio: Path) -> list[tuple[str, str]]:
    """Set and id of everything to train on, in the manifests' order."""
    found = []
    for name in SETS:
        with (audio / name / "manifest.tsv").open() as file:
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
                if name != "so762" or row["split"] == "train":
                    found.append((name, row["id"]))
    return found


def _decoded(path: Path) -> np.ndarray:
    return np.clip(np.round(read_audio(path) * 32768), -32768, 32767).astype(np.int16)


def main() -> None:
    """Write `wave.i16` and `index.tsv`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--audio", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    names, start = utterances(arguments.audio), 0
    paths = [arguments.audio / name / f"{identity}.opus" for name, identity in names]
    with (
        (arguments.out / "wave.i16").open("wb") as wave,
        (arguments.out / "index.tsv").open("w") as index,
        ProcessPoolExecutor(arguments.workers) as pool,
    ):
        index.write("set\tid\tstart\tsamples\n")
        for (name, identity), samples in zip(names, pool.map(_decoded, paths, chunksize=64), strict=True):
            if len(samples) >= SHORTEST:
                wave.write(samples.tobytes())
                index.write(f"{name}\t{identity}\t{start}\t{len(samples)}\n")
                start += len(samples)
    print(f"{start / SAMPLE_RATE_HZ / 3600:.2f} h", flush=True)


if __name__ == "__main__":
    main()
