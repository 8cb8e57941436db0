"""Audio files, shards or parquet tables in a folder and below it."""

# Walking a million files with os.path is several times as fast as with Path.

from __future__ import annotations

import itertools
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from slimvox.audio.av_file import has_av
from slimvox.audio.huggingface_datasets import PARQUET_EXTENSION, read_parquet
from slimvox.audio.remote import Place, RemoteFile, is_remote
from slimvox.audio.shards import SHARD_EXTENSION, read_shards
from slimvox.audio.sources import AUDIO_EXTENSIONS, UNSUPPORTED_EXTENSIONS, AudioSource
from slimvox.util.errors import SlimvoxError

logger = logging.getLogger("slimvox.audio")


def read_folder(folder: Place, watched: list[str]) -> Iterable[AudioSource]:
    """List the audio of a folder, or the tar archives or parquet tables if it holds no audio.

    Args:
        folder: searched recursively, hidden files left out.
        watched: list that the folders below it are added to.

    Raises:
        SlimvoxError: if it holds none of these.
    """
    audio = (*AUDIO_EXTENSIONS, *UNSUPPORTED_EXTENSIONS)
    decoded = audio if has_av() else AUDIO_EXTENSIONS
    left_out: Counter[str] = Counter()
    found = _files(folder, (*audio, SHARD_EXTENSION, PARQUET_EXTENSION), watched, left_out)
    # Files before the first one that is decoded; the rest, which may be a million, is not kept as a list.
    before = []
    for path in found:
        before.append(path)
        if path.lower().endswith(decoded):
            return _audio_of_folder(folder, itertools.chain(before, found), audio, left_out)
    if shards := [_at(path) for path in before if path.endswith(SHARD_EXTENSION)]:
        # A folder of lhotse Shar: its other archives hold features, or other recordings of the same cuts.
        of_cuts = [shard for shard in shards if shard.name.startswith("recording.")]
        return read_shards(of_cuts or shards)
    if tables := [Path(path) for path in before if path.lower().endswith(PARQUET_EXTENSION)]:
        return read_parquet(tables, Path(folder))
    others = f", but {len(before)} such as `{before[0]}` that is not decoded" if before else ""
    endings = ", ".join(AUDIO_EXTENSIONS)
    raise SlimvoxError(
        f"The folder `{folder}` holds no audio: no file in it or below it ends in {endings}{others}."
    )


def _audio_of_folder(
    folder: Place, paths: Iterable[str], extensions: tuple[str, ...], left_out: Counter[str]
) -> Iterator[AudioSource]:
    """The paths that end in one of `extensions`; in the end, their number and the suffixes left out are logged."""
    count = 0
    for path in paths:
        if path.lower().endswith(extensions):
            count += 1
            yield AudioSource(path=_at(path))
        else:
            left_out[os.path.splitext(path)[1]] += 1
    logger.info(
        "The folder `%s`: %d files of audio; left out: %s.",
        folder,
        count,
        ", ".join(f"{number} {suffix or 'without a suffix'}" for suffix, number in left_out.most_common())
        or "none",
    )


def _at(location: str) -> Place:
    return RemoteFile(location) if is_remote(location) else Path(location)


def _files(
    folder: Place, extensions: tuple[str, ...], watched: list[str], left_out: Counter[str]
) -> Iterator[str]:
    """Files below a folder with certain endings, sorted; the suffixes of others are counted."""
    if isinstance(folder, RemoteFile):
        names: Iterable[str] = folder.files()
    else:
        names = _walk(folder, watched)
    for name in names:
        if os.path.basename(name).startswith("."):
            left_out["hidden"] += 1
        elif name.lower().endswith(extensions):
            # Includes pipes, devices and dangling links: the scan names and counts them without opening them.
            yield name
        else:
            left_out[os.path.splitext(name)[1].lower()] += 1


def _walk(folder: Path, watched: list[str]) -> Iterator[str]:
    """Paths of the files below `folder`, sorted; each folder is visited once, even if several links lead to it."""
    seen: set[tuple[int, int]] = set()

    def is_new(directory: str) -> bool:
        try:
            status = os.stat(directory)
        except OSError:
            return False
        key = (status.st_dev, status.st_ino)
        if key in seen:
            return False
        seen.add(key)
        return True

    def warn(error: OSError) -> None:
        logger.warning("The folder `%s` cannot be read and is left out: %s.", error.filename, error.strerror)

    is_new(str(folder))
    for directory, subfolders, names in os.walk(folder, followlinks=True, onerror=warn):
        watched.append(os.path.abspath(directory))
        subfolders[:] = [
            name
            for name in sorted(subfolders)
            if not name.startswith(".") and is_new(os.path.join(directory, name))
        ]
        for name in sorted(names):
            yield os.path.join(directory, name)
