"""A small teacher and some speech, included so that the demo and the tests need no download.

embedded/
    teacher/    config.json, model.safetensors (float16), README.md (its model card)
    audio/      ID.opus (16 kHz mono), manifest.tsv, README.md (its origin)
"""

from __future__ import annotations

import csv
from importlib import resources
from pathlib import Path

SPLITS = ("train", "test")
"""Parts of the embedded audio: `train` to prune with, `test` held out to measure with. Every voice is in both."""


def teacher_directory() -> Path:
    """The directory of the embedded teacher, in the same format as a published `transformers` model."""
    return _directory("teacher")


def audio_directory() -> Path:
    """The directory of the embedded audio: Ogg/Opus files and their `manifest.tsv`."""
    return _directory("audio")


def audio_files(split: str | None = None) -> list[Path]:
    """The embedded audio's files in the manifest's order.

    Args:
        split: `train` or `test` for one part, None for both.

    Raises:
        ValueError: if `split` is neither.
    """
    if split is not None and split not in SPLITS:
        raise ValueError(f"`split` must be one of {', '.join(SPLITS)}, but is {split!r} instead.")
    directory = audio_directory()
    with (directory / "manifest.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [directory / f"{row['id']}.opus" for row in rows if split in (None, row["split"])]


def _directory(name: str) -> Path:
    # A package imported from a zip archive has no directory to hand out; pip never installs one that way.
    return Path(str(resources.files(__package__) / name))
