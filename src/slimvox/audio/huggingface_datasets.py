"""Audio in the rows of Hugging Face data sets (package `datasets`), read in place without unpacking."""

from __future__ import annotations

import io
import os
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from slimvox.audio.recordings import DatasetRecording
from slimvox.audio.shards import read_shards
from slimvox.audio.sources import AUDIO_EXTENSIONS, UNSUPPORTED_EXTENSIONS, AudioSource
from slimvox.util.environment import user_cache
from slimvox.util.errors import SlimvoxError, reason_of
from slimvox.util.imports import require

HUB_PREFIX = "hf:"
PARQUET_EXTENSION = ".parquet"
_DISK_FILES = (("dataset_dict.json",), ("dataset_info.json", "state.json"))
"""Files that `save_to_disk` writes to the folder of several splits, and of one split."""
_ROWS_LISTED_AT_ONCE = 1000
_stored_streams: list[tempfile.TemporaryDirectory[str]] = []
"""Archives of streamed data sets, which are deleted at the end of the process."""


class HuggingFaceDataset(Protocol):
    """A `Dataset` or `DatasetDict` of the package `datasets`."""

    def with_format(self, type: Any = None) -> Any:
        """The data set with its rows in another format."""


def is_dataset(source: object) -> bool:
    """True if `source` is an object of the package `datasets`, of one split or of several."""
    package = sys.modules.get("datasets")
    return package is not None and isinstance(
        source, (package.Dataset, package.DatasetDict, package.IterableDataset, package.IterableDatasetDict)
    )


def is_on_hub(source: str | os.PathLike[str]) -> bool:
    """True if a source is given as ``hf:NAME``."""
    return str(source).startswith(HUB_PREFIX)


def public_name(source: str) -> str:
    """Name of ``hf:NAME:...`` for public files: for a local folder, only its last part."""
    name, *rest = _hub_parts(source)
    if not os.path.isdir(name):
        return source
    return ":".join([os.path.basename(os.path.normpath(name)), *rest])


def is_saved_dataset(folder: Path) -> bool:
    """True if `save_to_disk` wrote this folder."""
    return any(all(os.path.isfile(folder / name) for name in names) for names in _DISK_FILES)


def dataset_name(dataset: HuggingFaceDataset) -> str:
    """Name of a data set that was given as an object."""
    splits: list[Any] = list(dataset.values()) if isinstance(dataset, dict) else [dataset]
    return str((splits[0].info.dataset_name if splits else None) or "dataset")


def read_saved_dataset(folder: Path) -> list[AudioSource]:
    """List the audio of a folder that `save_to_disk` wrote, all splits.

    Raises:
        SlimvoxError: `datasets` is missing, the folder is damaged, or there is no column of audio in it.
    """
    package = _package(f"the data set `{folder}`")
    try:
        dataset = package.load_from_disk(str(folder))
    except Exception as error:  # those of json, pyarrow and the file system
        raise SlimvoxError(
            f"The data set `{folder}` cannot be read: {reason_of(error).rstrip('.')}."
        ) from error
    return read_dataset(dataset, folder)


def read_parquet(files: list[Path], name: Path) -> list[AudioSource]:
    """List the audio of parquet files, of which `datasets` first makes an uncompressed copy in its cache.

    Raises:
        SlimvoxError: as for `read_saved_dataset`.
    """
    package = _package(f"`{name}`")
    try:
        dataset = package.load_dataset(
            "parquet", data_files=[os.path.abspath(file) for file in files], split="train"
        )
    except Exception as error:
        raise SlimvoxError(f"`{name}` cannot be read as parquet: {reason_of(error).rstrip('.')}.") from error
    return read_dataset(dataset, name)


def read_hub_dataset(source: str) -> list[AudioSource]:
    """List the audio of ``hf:NAME[:CONFIGURATION[:SPLIT]]``, which is downloaded if necessary.

    Without a split, all splits are listed; the configuration may be empty (``hf:NAME::train[:10%]``).

    Raises:
        SlimvoxError: as for `read_saved_dataset`, and if there is no such data set, configuration or split.
    """
    name, configuration, split = [*_hub_parts(source), "", ""][:3]
    if not name:
        raise SlimvoxError(
            f"A data set on the Hugging Face hub is given as `hf:NAME`, `hf:NAME:CONFIGURATION` or"
            f" `hf:NAME:CONFIGURATION:SPLIT`, but is `{source}` instead."
        )
    package = _package(f"`{source}`")
    try:
        dataset = package.load_dataset(name, configuration or None, split=split or None)
    except Exception as error:  # those of the hub, of the network, of each builder
        raise SlimvoxError(
            f"The data set `{source}` cannot be loaded: {reason_of(error).rstrip('.')}."
        ) from error
    return read_dataset(dataset, Path(source))


def read_dataset(dataset: HuggingFaceDataset, name: Path) -> list[AudioSource]:
    """List the recordings of a data set, of all its splits if it has several.

    The audio is in the column `audio`, or in the only one that holds any: bytes in the row, or the path of a file.

    Args:
        dataset: a streamed one is read to its end, and its audio kept as a tar archive in the user's cache until this
            process ends.
        name: what recordings are named after.

    Raises:
        SlimvoxError: if it has no column of audio, several but none called `audio`, or no rows.
    """
    splits = {getattr(dataset, "split", None): dataset}
    if isinstance(dataset, dict):
        splits = dataset
    found = [
        source
        for split, part in splits.items()
        for source in _read_split(part, name / str(split) if split else name)
    ]
    if not found:
        raise SlimvoxError(f"The data set `{name}` has no rows.")
    return found


def _hub_parts(source: str) -> list[str]:
    """Name and, if given, configuration and split; the split is the rest of the text, since `train[:10%]` is one."""
    return source.removeprefix(HUB_PREFIX).split(":", maxsplit=2)


def _read_split(dataset: Any, name: Path) -> list[AudioSource]:
    if not hasattr(dataset, "num_rows"):
        return list(read_shards([_stored(dataset, name)]))
    column = _audio_column(dataset, name)
    table = dataset.select_columns([column]).with_format("arrow")
    rows = list(_rows(table, column))
    names = [os.path.basename(path or "") for path, _ in rows]
    often = Counter(names)
    found = []
    for row, ((path, is_inside), file_name) in enumerate(zip(rows, names, strict=True)):
        if path and not is_inside:
            found.append(AudioSource(path=Path(path)))
            continue
        # Outputs are named after it, and a name may be missing or occur twice.
        unique = (
            file_name if file_name and often[file_name] == 1 else f"{row:08d}{file_name and '-'}{file_name}"
        )
        recording = DatasetRecording(location=name / unique, table=table, row=row, column=column)
        found.append(AudioSource(path=recording))
    return found


def _stored(dataset: Any, name: Path) -> Path:
    """The audio of a streamed data set in a tar archive, which is deleted at the end of the process."""
    package = _package(f"`{name}`")
    # Some streams know their columns only after the first row.
    dataset = dataset if dataset.features else dataset._resolve_features()
    column = _audio_column(dataset, name)
    if type(dataset.features[column]).__name__ == "Audio":
        dataset = dataset.cast_column(column, package.Audio(decode=False))
    folder = user_cache() / "streams"
    row = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        room = tempfile.TemporaryDirectory(prefix=f"{os.getpid()}-", dir=folder)
        _stored_streams.append(room)
        with tarfile.open(path := Path(room.name) / "audio.tar", "w") as archive:
            for row, cell in enumerate((each[column] for each in dataset), start=1):
                content = cell["bytes"] or Path(cell["path"]).read_bytes()
                file_name = os.path.basename(cell.get("path") or "")
                # The decoder looks at the content; an extension makes it audio for the reader of shards.
                is_named = file_name.lower().endswith((*AUDIO_EXTENSIONS, *UNSUPPORTED_EXTENSIONS))
                suffix = "" if is_named else ".wav"
                member = tarfile.TarInfo(f"{name.name}/{row - 1:08d}{file_name and '-'}{file_name}{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
                archive.members = []  # type: ignore[attr-defined]
    except Exception as error:  # those of the network, of each builder, and of a full disk
        raise SlimvoxError(
            f"The data set `{name}` cannot be read: {reason_of(error).rstrip('.')}."
        ) from error
    if not row:
        raise SlimvoxError(f"The data set `{name}` has no rows.")
    return path


def _rows(table: Any, column: str) -> Iterator[tuple[str | None, bool]]:
    """For each row, its path, and whether the audio itself is in the row."""
    for batch in table.iter(batch_size=_ROWS_LISTED_AT_ONCE):
        for chunk in batch[column].chunks:
            inside = chunk.field("bytes").is_valid().to_pylist()
            has_paths = any(part.name == "path" for part in chunk.type)
            paths = chunk.field("path").to_pylist() if has_paths else [None] * len(inside)
            yield from zip(paths, inside, strict=True)


def _audio_column(dataset: Any, name: Path) -> str:
    features: Mapping[str, Any] = dataset.features
    columns = [column for column, feature in features.items() if _holds_audio(feature)]
    if "audio" in columns:
        return "audio"
    if len(columns) != 1:
        what = f"{len(columns)}: {', '.join(columns)}" if columns else f"none: {', '.join(features)}"
        raise SlimvoxError(
            f"The data set `{name}` must have a column `audio`, or one column of audio, but has {what}."
        )
    return columns[0]


def _holds_audio(feature: object) -> bool:
    """True for columns of audio, also in parquet files without the metadata of `datasets`."""
    return type(feature).__name__ == "Audio" or (isinstance(feature, dict) and "bytes" in feature)


def _package(what: str) -> Any:
    require(["datasets"], what, extra="datasets")
    import datasets

    return datasets
