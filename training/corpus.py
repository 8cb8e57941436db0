"""The pre-training corpus: waveforms and targets, flat on disk, cut into batches without padding."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

HOP, FIELD = 320, 400
"""Samples from frame to frame, and under one frame."""
TARGETS = ("last", "mid")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Crops of one length; B crops of T frames."""

    waveforms: Tensor
    """(B, samples) float32."""
    units: dict[str, Tensor]
    """Per target layer, the cluster of each frame: (B, T) int64."""
    states: Tensor
    """The target network's last states, normalised per dimension: (B, T, 512) float32."""


class Corpus:
    """Targets written by `targets.py`."""

    def __init__(self, directory: Path, *, held_out: int = 64) -> None:
        with (directory / "index.tsv").open() as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        table = np.array([[int(row[key]) for key in ("start", "samples", "frame", "frames")] for row in rows])
        chosen = np.random.default_rng(7).permutation(len(table))
        self.held_out, self.utterances = table[chosen[:held_out]], table[chosen[held_out:]]
        self.waveform = np.memmap(directory / "wave.i16", np.int16, "r")
        self.states = np.memmap(directory / "last.f16", np.float16, "r").reshape(-1, 512)
        self.units = {name: np.load(directory / f"{name}_units.npy", mmap_mode="r") for name in TARGETS}
        statistics = np.load(directory / "last_stats.npz")
        self.mean, self.std = statistics["mean"], statistics["std"]

    @property
    def hours(self) -> float:
        """Hours of training audio."""
        return float(self.utterances[:, 1].sum()) / 16_000 / 3600

    def batches(self, seed: int, *, seconds_per_batch: float, crop_seconds: float) -> Iterator[Batch]:
        """Endless random batches: crops of at most `crop_seconds`, bucketed by length, cut to the shortest."""
        rng = np.random.default_rng(seed)
        longest = int(crop_seconds * 50)
        while True:
            crops = [crop for row in self.utterances for crop in self._crops(row, longest, rng)]
            lengths = np.array([frames for _, _, frames in crops]) * rng.uniform(0.9, 1.1, len(crops))
            order = np.argsort(lengths, kind="stable")
            groups: list[list[int]] = [[]]
            for index in order:
                if (len(groups[-1]) + 1) * crops[index][2] > seconds_per_batch * 50:
                    groups.append([])
                groups[-1].append(int(index))
            for group in rng.permutation(len(groups)):
                if groups[group]:
                    yield self._load([crops[index] for index in groups[group]])

    def held_out_batches(self) -> Iterator[Batch]:
        """The held-out utterances, one by one, at most 10 s of each."""
        for start, _, frame, frames in self.held_out:
            yield self._load([(int(start), int(frame), int(min(frames, 500)))])

    def _crops(
        self, row: np.ndarray, longest: int, rng: np.random.Generator
    ) -> Iterator[tuple[int, int, int]]:
        """(first sample, first frame, frames) of the crops that cover an utterance at a random offset."""
        start, _, frame, frames = (int(value) for value in row)
        pieces = -(-frames // longest)
        offset = int(rng.integers(0, max(1, frames % longest if pieces > 1 else 1)))
        for piece in range(pieces):
            first = min(offset + piece * longest, max(0, frames - longest))
            yield start + first * HOP, frame + first, min(longest, frames - first)

    def _load(self, crops: list[tuple[int, int, int]]) -> Batch:
        frames = min(crop[2] for crop in crops)
        samples = (frames - 1) * HOP + FIELD
        waveforms = np.stack([self.waveform[start : start + samples] for start, _, _ in crops]).astype(
            np.float32
        )
        rows = np.stack([np.arange(frame, frame + frames) for _, frame, _ in crops])
        states = (self.states[rows].astype(np.float32) - self.mean) / self.std
        return Batch(
            waveforms=torch.from_numpy(waveforms / 32768.0),
            units={
                name: torch.from_numpy(units[rows].astype(np.int64)) for name, units in self.units.items()
            },
            states=torch.from_numpy(states),
        )
