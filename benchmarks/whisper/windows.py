"""Whole windows of audio out of short clips, in the form in which Whisper's decoder knows the encoder's states.

Whisper was trained on clips that are padded with silence to a whole window. The states of a clip without that silence
are other states, and the decoder loops on them (docs/lab-notebook.md), so an encoder is distilled on whole windows as
well. Half of the windows hold a single clip, the others as many clips as fit.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path

import numpy as np
import soundfile

from slimvox.audio import SAMPLE_RATE_HZ, read_audio

PAUSE_SECONDS = 0.3
"""Silence between the clips of a window."""
TRAINING_SETS = ("so762", "libri", "s2i", "wake")
HELD_OUT_WINDOWS = 16


@dataclass(frozen=True, kw_only=True)
class LabelledClip:
    """A clip of one of the sets."""

    path: Path
    seconds: float
    text: str
    """Words, if the set has transcripts."""


def clips_of(data: Path, name: str, split: str) -> list[LabelledClip]:
    """Clips of a split of a set, `DATA/NAME/manifest.tsv`; a set without splits is all training."""
    with (data / name / "manifest.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [
        LabelledClip(
            path=data / name / f"{row['id']}.opus", seconds=float(row["seconds"]), text=row.get("text", "")
        )
        for row in rows
        if row.get("split", "train") == split
    ]


def write_windows(data: Path, out: Path, *, seconds: float, count: int) -> tuple[Path, Path, Path]:
    """Write windows of the training splits; returns the folders of those to train on, to measure on, and the rest.

    Args:
        data: folder of the sets.
        out: folder for the windows; nothing is done if it is complete.
        seconds: length of a window.
        count: number of windows to train on.
    """
    folders = out / "training", out / "held-out", out / "more"
    if (out / "complete").is_file() and folders[2].is_dir():
        return folders
    draw = random.Random(0)
    clips = [
        clip for name in TRAINING_SETS for clip in clips_of(data, name, "train") if clip.seconds <= seconds
    ]
    draw.shuffle(clips)
    windows = _windows(clips, seconds, draw)
    with ThreadPoolExecutor() as pool:
        for folder, number in zip(folders, (count, HELD_OUT_WINDOWS, None), strict=True):
            folder.mkdir(parents=True, exist_ok=True)
            chosen = list(islice(windows, number))
            files = (folder / f"{index:05}.flac" for index in range(len(chosen)))
            list(pool.map(_write, files, chosen, repeat(seconds)))
    (out / "complete").touch()
    return folders


def _write(path: Path, members: Sequence[LabelledClip], seconds: float) -> None:
    soundfile.write(path, _joined(members, seconds), SAMPLE_RATE_HZ)


def _windows(
    clips: Sequence[LabelledClip], seconds: float, draw: random.Random
) -> Iterator[list[LabelledClip]]:
    """Clips of each window; none is used twice before all others were."""
    waiting = list(clips)
    while waiting:
        members = [waiting.pop()]
        if draw.random() < 0.5:
            used = members[0].seconds
            while waiting and used + PAUSE_SECONDS + waiting[-1].seconds <= seconds:
                used += PAUSE_SECONDS + waiting[-1].seconds
                members.append(waiting.pop())
        yield members


def _joined(members: Sequence[LabelledClip], seconds: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    window = np.zeros(round(seconds * SAMPLE_RATE_HZ), np.float32)
    place = 0
    for clip in members:
        samples = read_audio(clip.path)[: len(window) - place]
        window[place : place + len(samples)] = samples
        place += len(samples) + round(PAUSE_SECONDS * SAMPLE_RATE_HZ)
    return window
