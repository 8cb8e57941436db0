"""Audio files behind the sources that a user names: files, folders, lists, manifests, data sets."""

# os.path answers False where Path methods raise (a folder without permission, an overlong name), and walking
# a million files with it is several times as fast.

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from slimvox.audio.huggingface_datasets import (
    HUB_PREFIX,
    PARQUET_EXTENSION,
    HuggingFaceDataset,
    dataset_name,
    is_dataset,
    is_on_hub,
    is_saved_dataset,
    public_name,
    read_dataset,
    read_hub_dataset,
    read_parquet,
    read_saved_dataset,
)
from slimvox.audio.kaldi import SCP_EXTENSION, SEGMENTS_NAME, is_kaldi, read_kaldi
from slimvox.audio.manifests import MANIFEST_EXTENSIONS, manifest_extension, read_manifest
from slimvox.audio.sources import AUDIO_EXTENSIONS, UNSUPPORTED_EXTENSIONS, AudioSource, read_text
from slimvox.util.errors import SlimvoxError

logger = logging.getLogger("slimvox.audio")

AudioInput: TypeAlias = str | Path | HuggingFaceDataset
"""Type of a source of audio."""
LIST_EXTENSIONS = (".txt", ".lst")


def as_sources(audio: AudioInput | Sequence[AudioInput]) -> list[AudioInput]:
    """One source, or several, as a list.

    Raises:
        SlimvoxError: if there is none, or one has no name.
    """
    if isinstance(audio, (str, os.PathLike)) or is_dataset(audio):
        sources: list[AudioInput] = [audio]  # type: ignore[list-item]
    else:
        sources = list(audio)  # type: ignore[arg-type]
    if any(isinstance(source, str) and not source.strip() for source in sources):
        raise SlimvoxError("The path of the audio must not be empty: write `.` for the current folder.")
    if not sources:
        raise SlimvoxError(
            "no audio given: name files, folders, lists, manifests or data sets after the model"
        )
    return sources


def source_name(source: AudioInput) -> str:
    """Name of a source for public files: the last part of a path, as text that UTF-8 can encode."""
    if isinstance(source, (str, os.PathLike)):
        return printable(public_name(str(source)) if is_on_hub(source) else Path(source).name)
    return printable(dataset_name(source))


def printable(name: str) -> str:
    """A name as text: bytes of a file name that are not UTF-8 are replaced."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def find_audio(sources: Sequence[AudioInput]) -> list[AudioSource]:
    """List all audio that `sources` mean, in a fixed order, each stretch once.

    A source is an audio file, a folder (searched recursively, hidden files left out; a manifest in it is not
    read), a ``.txt`` or ``.lst`` list with one path a line (relative to the list's folder, ``#`` comments),
    a manifest (see `slimvox.audio.manifests.read_manifest`), Kaldi's ``wav.scp`` or ``segments``, or a Hugging Face
    data set: ``hf:NAME``, ``hf:NAME:CONFIGURATION:SPLIT``, a folder that `save_to_disk` wrote, parquet files or a
    folder of them, or an object of the package `datasets` (see `slimvox.audio.huggingface_datasets`). What is named
    again (the same stretch and channel of the same file) counts once, and the log says how often that was so. Files
    named by a list or manifest need not exist, and files that libsndfile does not decode are listed too: scanning
    counts those that cannot be used.

    Raises:
        SlimvoxError: no source given, a source that does not exist or is of no known kind, a folder, list,
            manifest or data set with no audio in it, a manifest or data set that cannot be understood.
    """
    sources = as_sources(sources)
    found: dict[tuple[str, float, float | None, int | None], AudioSource] = {}
    objects = 0
    for source in sources:
        if isinstance(source, (str, os.PathLike)):
            listed = (
                read_hub_dataset(str(source)) if is_on_hub(source) else _expand(Path(source).expanduser())
            )
        else:
            # Two objects may have one name, and are different data sets all the same.
            objects += 1
            listed = read_dataset(
                source, Path(f"{dataset_name(source)}{f'-{objects}' if objects > 1 else ''}")
            )
        before = len(found)
        for audio in listed:
            stretch = (os.path.abspath(audio.path), audio.offset_seconds, audio.seconds, audio.channel)
            found.setdefault(stretch, audio)
        if repeated := before + len(listed) - len(found):
            logger.warning(
                "`%s`: %d of %d rows or files name audio that was named before, and count once.",
                source_name(source),
                repeated,
                len(listed),
            )
    return list(found.values())


def _expand(path: Path) -> list[AudioSource]:
    if os.path.isdir(path):
        return read_saved_dataset(path) if is_saved_dataset(path) else _read_folder(path)
    if not os.path.exists(path):
        raise SlimvoxError(f"The audio path `{path}` does not exist.")
    extension = manifest_extension(path)
    if is_kaldi(path):
        return read_kaldi(path)
    if extension in (*AUDIO_EXTENSIONS, *UNSUPPORTED_EXTENSIONS):
        return [AudioSource(path=path)]
    if extension in LIST_EXTENSIONS:
        return _read_list(path)
    if extension in MANIFEST_EXTENSIONS:
        return read_manifest(path)
    if extension == PARQUET_EXTENSION:
        return read_parquet([path], path)
    raise SlimvoxError(
        f"`{path}` must be a folder, an audio file ({_join(AUDIO_EXTENSIONS)}), a list ({_join(LIST_EXTENSIONS)}), "
        f"a manifest ({_join(MANIFEST_EXTENSIONS)}, {SCP_EXTENSION}, {SEGMENTS_NAME}) "
        f"or a data set ({HUB_PREFIX}NAME, {PARQUET_EXTENSION}), "
        f"but ends in '{path.suffix}' instead."
    )


def _read_folder(folder: Path) -> list[AudioSource]:
    found = list(_walk(folder, (*AUDIO_EXTENSIONS, *UNSUPPORTED_EXTENSIONS)))
    if any(path.lower().endswith(AUDIO_EXTENSIONS) for path in found):
        return [AudioSource(path=Path(path)) for path in found]
    if tables := [Path(path) for path in _walk(folder, (PARQUET_EXTENSION,))]:
        return read_parquet(tables, folder)
    others = f", but {len(found)} such as `{found[0]}` that is not decoded" if found else ""
    raise SlimvoxError(
        f"The folder `{folder}` holds no audio: no file in it or below it ends in {_join(AUDIO_EXTENSIONS)}{others}."
    )


def _walk(folder: Path, extensions: tuple[str, ...]) -> Iterator[str]:
    """Paths of the files below `folder` that end so, sorted; each folder once, however many links lead to it."""
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

    def tell(error: OSError) -> None:
        logger.warning("The folder `%s` cannot be read and is left out: %s.", error.filename, error.strerror)

    is_new(str(folder))
    for directory, subfolders, names in os.walk(folder, followlinks=True, onerror=tell):
        subfolders[:] = [
            name
            for name in sorted(subfolders)
            if not name.startswith(".") and is_new(os.path.join(directory, name))
        ]
        for name in sorted(names):
            if name.lower().endswith(extensions) and not name.startswith("."):
                # Pipes, devices and dangling links too: the scan names and counts them, and opens none.
                yield os.path.join(directory, name)


def _read_list(path: Path) -> list[AudioSource]:
    lines = (line.strip() for line in read_text(path).split("\n"))
    found = [AudioSource(path=path.parent / line) for line in lines if line and not line.startswith("#")]
    if not found:
        raise SlimvoxError(f"The list `{path}` names no audio: it must hold one path on each line.")
    return found


def _join(extensions: Sequence[str]) -> str:
    return ", ".join(extensions)
