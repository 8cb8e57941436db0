"""Audio files behind the sources that a user names: files, folders, lists, manifests, data sets."""

# os.path answers False where Path methods raise (a folder without permission, an overlong name).

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from slimvox.audio.folders import read_folder
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
from slimvox.audio.mix import WeightedAudio, unweighted
from slimvox.audio.remote import Place, RemoteFile, is_remote
from slimvox.audio.shards import SHARD_EXTENSION, expanded, is_shard, read_shards
from slimvox.audio.sources import (
    AUDIO_EXTENSIONS,
    UNSUPPORTED_EXTENSIONS,
    AudioSource,
    absolute,
    joined_path,
    read_text,
)
from slimvox.audio.table import AudioTable, TableBuilder, joined
from slimvox.util.errors import SlimvoxError
from slimvox.util.registry import Registry

logger = logging.getLogger("slimvox.audio")

BareInput: TypeAlias = str | Path | HuggingFaceDataset
AudioInput: TypeAlias = BareInput | WeightedAudio
"""Type of a source of audio."""
LIST_EXTENSIONS = (".txt", ".lst", ".list")


def as_sources(audio: AudioInput | Sequence[AudioInput] | Mapping[Any, float]) -> list[AudioInput]:
    """One source, several, or a mapping of sources to their weights in a mix, as a list.

    Raises:
        SlimvoxError: if there is none, one is of another type or has no name, or a weight is not above 0.
    """
    if isinstance(audio, (str, os.PathLike, WeightedAudio)) or is_dataset(audio):
        sources: list[AudioInput] = [audio]  # type: ignore[list-item]
    elif isinstance(audio, Mapping):
        sources = [WeightedAudio(source, weight) for source, weight in audio.items()]
    else:
        try:
            sources = [audio] if isinstance(audio, bytes) else list(audio)  # type: ignore[arg-type]
        except TypeError:  # None, a number
            sources = [audio]  # type: ignore[list-item]
    for source in sources:
        bare = unweighted(source)[0]
        if not isinstance(bare, (str, os.PathLike)) and not is_dataset(bare):
            raise SlimvoxError(
                "audio must be given as a path, a URL, a data set, or a list of these, but one source is of type"
                f" {type(bare).__name__}: write waveforms to files first"
            )
    if any(isinstance(source, str) and not source.strip() for source in sources):
        raise SlimvoxError("The path of the audio must not be empty: write `.` for the current folder.")
    if not sources:
        raise SlimvoxError(
            "no audio given: name files, folders, lists, manifests or data sets after the model"
        )
    return sources


def source_name(source: AudioInput) -> str:
    """Name of a source for public files: the last part of a path, as text that UTF-8 can encode."""
    bare, _ = unweighted(source)
    if isinstance(bare, (str, os.PathLike)):
        return printable(public_name(str(bare)) if is_on_hub(bare) else Path(bare).name)
    return printable(dataset_name(bare))


def source_place(source: BareInput) -> str | None:
    """Absolute path, URL or name on the hub of a source; None for an object."""
    if not isinstance(source, (str, os.PathLike)):
        return None
    if is_on_hub(source) or is_remote(source):
        return str(source)
    return os.path.abspath(Path(source).expanduser())


def printable(name: str) -> str:
    """A name as text: bytes of a file name that are not UTF-8 are replaced."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def find_audio(sources: Sequence[AudioInput]) -> AudioTable[AudioSource]:
    """List all audio of `sources`, in a fixed order, each stretch once.

    A source is one of:

    - an audio file, or a folder, which is searched recursively, without hidden files and manifests;
    - a tar archive of WebDataset or lhotse Shar, several (`a-{000..099}.tar`), or a folder of them;
    - a ``.txt``, ``.lst`` or ``.list`` list with one path per line, relative to the list's folder; ``#`` begins a
      comment;
    - a manifest (see `slimvox.audio.manifests.read_manifest`), or Kaldi's ``wav.scp`` or ``segments``;
    - a Hugging Face data set (see `slimvox.audio.huggingface_datasets`): ``hf:NAME``, ``hf:NAME:CONFIGURATION:SPLIT``,
      a folder written by `save_to_disk`, parquet files or a folder of them, or an object of the package `datasets`.

    All but the data sets may be URLs that fsspec can read (``https://``, ``s3://``, ``gs://``). Audio that is named
    repeatedly (the same stretch and channel of the same file) counts once, and the log gives the number of repetitions.
    Files named by a list or manifest need not exist, and files that libsndfile does not decode are listed too; scanning
    counts those that cannot be used.

    Raises:
        SlimvoxError: if there is no source, or one does not exist, is of an unknown kind, cannot be understood, or
            contains no audio.
    """
    sources = as_sources(sources)
    return without_repetitions(sources, [list_source(*each)[0] for each in numbered(sources)])[0]


def numbered(sources: Sequence[AudioInput]) -> list[tuple[BareInput, int]]:
    """The sources without their weights, each with its number among those that are objects."""
    bare = [unweighted(source)[0] for source in sources]
    is_object = [not isinstance(source, (str, os.PathLike)) for source in bare]
    return list(zip(bare, itertools.accumulate(is_object), strict=True))


def without_repetitions(
    sources: Sequence[AudioInput], tables: Sequence[AudioTable[AudioSource]]
) -> tuple[AudioTable[AudioSource], npt.NDArray[np.integer]]:
    """One table of all sources, and the number of the source that each stretch is from; repetitions are logged."""
    # The stretches of a single source were joined when they were listed.
    table, origin = joined(tables) if len(tables) > 1 else (tables[0], np.zeros(len(tables[0]), np.int16))
    kept = np.bincount(origin, minlength=len(tables))
    for source, each, left in zip(sources, tables, kept.tolist(), strict=True):
        if repeated := each.named - left:
            logger.warning(
                "`%s`: %d of %d rows or files repeat audio that was named before; it is used once.",
                source_name(source),
                repeated,
                each.named,
            )
    return table, origin


def list_source(source: BareInput, number: int) -> tuple[AudioTable[AudioSource], list[str]]:
    """List one source.

    Args:
        source: without a weight.
        number: distinguishes objects with the same name, which are different data sets.

    Returns:
        The audio, and the files and folders that determine it.
    """
    builder = TableBuilder()
    watched: list[str] = []
    if not isinstance(source, (str, os.PathLike)):
        name = f"{dataset_name(source)}{f'-{number}' if number > 1 else ''}"
        found: Iterable[AudioSource] = read_dataset(source, Path(name))
    elif is_on_hub(source):
        found = read_hub_dataset(str(source))
    else:
        found = _expand(str(source), watched)
    for audio in found:
        builder.add(audio)
    return builder.table(), watched


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A kind of source that is given as a path or URL."""

    name: str
    described: str
    """Description for the error message that lists all kinds."""
    accepts: Callable[[Place], bool]
    read: Callable[[Place, list[str]], Iterable[AudioSource]]
    """Function that lists the audio, and adds further files and folders that determine it."""


def _expand(name: str, watched: list[str]) -> Iterable[AudioSource]:
    """List the audio of a path or URL."""
    path: Place = RemoteFile(name) if is_remote(name) else Path(name).expanduser()
    paths: list[Place] = [path]
    if len(names := expanded(name)) > 1 and not os.path.exists(path):
        paths = [RemoteFile(each) if is_remote(name) else Path(each).expanduser() for each in names]
    for each in paths:
        if isinstance(each, Path) and not os.path.exists(each):
            raise SlimvoxError(f"The audio path `{each}` does not exist.")
    watched += map(absolute, paths)
    if all(is_shard(each.name) and not os.path.isdir(each) for each in paths):
        return read_shards(paths)
    return itertools.chain.from_iterable(_reader_of(each).read(each, watched) for each in paths)


def _reader_of(path: Place) -> Reader:
    for reader in READERS.all():
        if reader.accepts(path):
            return reader
    raise SlimvoxError(
        f"`{path}` must be {', '.join(reader.described for reader in READERS.all() if reader.described)} "
        f"or a data set of the hub ({HUB_PREFIX}NAME), but ends in '{path.suffix}' instead."
    )


def _join(extensions: Sequence[str]) -> str:
    return ", ".join(extensions)


def _ends_in(*extensions: str) -> Callable[[Place], bool]:
    return lambda path: manifest_extension(path) in extensions


def _read_list(path: Place, watched: list[str]) -> Iterable[AudioSource]:
    lines = [line.strip() for line in read_text(path).split("\n")]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise SlimvoxError(f"The list `{path}` names no audio: it must hold one path on each line.")
    # WeNet's `data.list`: objects with a path each, or tar archives.
    if lines[0].startswith("{"):
        return read_manifest(path, watched.append)
    files = [joined_path(path.parent, line) for line in lines]
    if all(is_shard(file.name) for file in files):
        watched += map(absolute, files)
        return read_shards(files)
    return (AudioSource(path=file) for file in files)


READERS: Registry[Reader] = Registry("reader")
"""Kinds of sources in the order in which they are tried."""

for _reader in (
    Reader(
        name="saved data set",
        described="a folder",
        accepts=lambda path: os.path.isdir(path) and is_saved_dataset(Path(path)),
        read=lambda path, watched: read_saved_dataset(Path(path)),
    ),
    Reader(
        name="folder",
        described="",
        accepts=lambda path: os.path.isdir(path) or (is_remote(path) and not path.suffix),
        read=read_folder,
    ),
    Reader(
        name="Kaldi",
        described=f"a table of Kaldi (*{SCP_EXTENSION}, {SEGMENTS_NAME})",
        accepts=is_kaldi,
        read=lambda path, watched: read_kaldi(path, watched.append),
    ),
    Reader(
        name="audio",
        described=f"an audio file ({_join(AUDIO_EXTENSIONS)})",
        accepts=_ends_in(*AUDIO_EXTENSIONS, *UNSUPPORTED_EXTENSIONS),
        read=lambda path, watched: [AudioSource(path=path)],
    ),
    Reader(
        name="list",
        described=f"a list ({_join(LIST_EXTENSIONS)})",
        accepts=_ends_in(*LIST_EXTENSIONS),
        read=_read_list,
    ),
    Reader(
        name="shard",
        described=f"a shard ({SHARD_EXTENSION})",
        accepts=lambda path: is_shard(path.name),
        read=lambda path, watched: read_shards([path]),
    ),
    Reader(
        name="manifest",
        described=f"a manifest ({_join(MANIFEST_EXTENSIONS)})",
        accepts=_ends_in(*MANIFEST_EXTENSIONS),
        read=lambda path, watched: read_manifest(path, watched.append),
    ),
    Reader(
        name="parquet",
        described=f"a table ({PARQUET_EXTENSION})",
        accepts=_ends_in(PARQUET_EXTENSION),
        read=lambda path, watched: read_parquet([Path(path)], Path(path)),
    ),
):
    READERS.register(_reader)
