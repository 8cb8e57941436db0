"""Manifests: tables that name audio files, one per row."""

# os.path answers False where Path methods raise (a folder without permission, an overlong name).

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

from slimvox.audio.columns import (
    ID_COLUMN,
    PATH_COLUMNS,
    Row,
    check_columns,
    file_of,
    normalized,
    short,
    stretch_of,
)
from slimvox.audio.lhotse import is_lhotse, lhotse_source
from slimvox.audio.recordings import ArchiveMember, AudioFile
from slimvox.audio.remote import Place, is_remote
from slimvox.audio.shards import members
from slimvox.audio.sources import AUDIO_EXTENSIONS, AudioSource, absolute, joined_path, read_text
from slimvox.audio.tables import read_rows
from slimvox.util.errors import SlimvoxError

MANIFEST_EXTENSIONS = (".tsv", ".csv", ".jsonl", ".json", ".ndjson")
"""Extensions of manifests; each may be followed by ``.gz``."""

_COMMON_VOICE_COLUMN, _COMMON_VOICE_FOLDER = "client_id", "clips"
_PLACEHOLDER = re.compile(r"^(\{\w+\}|\$\w+|\$\{\w+\})")
_FAIRSEQ_ROW = re.compile(r"^[^\t]+\t\d+$")


def manifest_extension(path: Place) -> str:
    """The extension that determines the kind of a manifest, in lower case, without ``.gz``."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else (suffixes or [""])[-1]


def read_manifest(path: Place, watch: Callable[[str], None] = lambda _: None) -> Iterator[AudioSource]:
    """List the audio that a manifest names, in its order, one for each row.

    TSV and CSV with a header; JSON with one object per line (as NeMo writes it, and lhotse its cuts), one list of
    objects, or one object of objects (as SpeechBrain writes it); and the TSV of fairseq (a folder on the first line,
    then path and length). `slimvox.audio.columns` says which columns name the file, the stretch and the channel. A path
    is relative to the manifest's folder; if there is only an `id`, the file is ``ID.<extension>`` there. In the tables
    of Common Voice it is relative to the folder `clips`, and rows of NeMo with a `shard_id` name members of the archive
    `audio_<shard_id>.tar` beside the manifest.

    Args:
        path: the manifest.
        watch: function that is called with each folder whose listing matters.

    Raises:
        SlimvoxError: unreadable text, no rows, no column that names a file, a value that cannot be understood, or
            columns that contradict each other.
    """
    neighbours = _Neighbours(path.parent, watch)
    row = None
    for where, row in _rows(path):
        yield _source(row, where, neighbours)
    if row is None:
        raise SlimvoxError(f"The manifest `{path}` names no audio: it has no rows.")


class _Neighbours:
    """Finds ``ID.<extension>`` below a folder, and members of archives in it, listing each once."""

    def __init__(self, folder: Place, watch: Callable[[str], None]) -> None:
        self.folder, self._watch = folder, watch
        self._names: dict[str, dict[str, str]] = {}
        self._members: dict[str, dict[str, ArchiveMember]] = {}

    def find(self, name: str) -> Place:
        """Path of the audio file whose name without its extension is `name`, else the path `name` itself."""
        path = joined_path(self.folder, name)
        folder = os.fspath(path.parent)
        if folder not in self._names:
            self._watch(absolute(path.parent))
            self._names[folder] = self._list(folder)
        return joined_path(path.parent, self._names[folder].get(path.name, path.name))

    def in_shard(self, shard: str, name: str) -> ArchiveMember:
        """Member `name` of an archive; if there is none, a member that cannot be opened."""
        if shard not in self._members:
            archive = joined_path(self.folder, shard)
            self._watch(absolute(archive))
            self._members[shard] = {member.member: member for member in members(archive)}
        found = self._members[shard].get(name)
        return found or ArchiveMember(archive=self.folder / shard, member=name, start=-1, size=0)

    @staticmethod
    def _list(folder: str) -> dict[str, str]:
        try:
            names = os.listdir(folder)
        except (OSError, ValueError):
            return {}
        audio = [(stem, extension) for stem, extension in map(os.path.splitext, names)]
        audio = [pair for pair in audio if pair[1].lower() in AUDIO_EXTENSIONS]
        audio.sort(key=lambda pair: AUDIO_EXTENSIONS.index(pair[1].lower()), reverse=True)
        return {stem: stem + extension for stem, extension in audio}


def _rows(path: Place) -> Iterator[tuple[str, Row]]:
    """Yield the place of each row, for messages, and its values by normalised column name."""
    text = read_text(path)
    extension = manifest_extension(path)
    if extension not in (".tsv", ".csv"):
        return _json_rows(path, text)
    if extension == ".tsv":
        root, _, rest = text.partition("\n")
        is_header = "\t" in root or normalized(root) in ("", *PATH_COLUMNS, ID_COLUMN)
        if not is_header and (
            os.path.isdir(joined_path(path.parent, root.strip()))
            or _FAIRSEQ_ROW.match(rest.partition("\n")[0].strip())
        ):
            return _fairseq_rows(path, root.strip(), rest)
    return _table_rows(path, text, is_tsv=extension == ".tsv")


def _table_rows(path: Place, text: str, *, is_tsv: bool) -> Iterator[tuple[str, Row]]:
    columns, rows = read_rows(path, text, is_tsv=is_tsv)
    check_columns(columns, f"The manifest `{path}`")
    clips = path.parent / _COMMON_VOICE_FOLDER
    is_common_voice = _COMMON_VOICE_COLUMN in columns and (os.path.isdir(clips) or is_remote(clips))
    for line, row in rows:
        if is_common_voice and row.get("path"):
            row["path"] = f"{_COMMON_VOICE_FOLDER}/{row['path']}"
        yield f"line {line} of `{path}`", row


def _fairseq_rows(path: Place, root: str, text: str) -> Iterator[tuple[str, Row]]:
    if not os.path.isdir(joined_path(path.parent, root)) and not is_remote(joined_path(path.parent, root)):
        raise SlimvoxError(
            f"The folder `{root}` on the first line of the fairseq manifest `{path}` does not exist here: write the "
            "folder of its files there."
        )
    for number, line in enumerate(text.split("\n"), start=2):
        if line.strip():
            yield (
                f"line {number} of `{path}`",
                {"path": f"{root.rstrip('/')}/{line.split(chr(9))[0].strip()}"},
            )


def _json_rows(path: Place, text: str) -> Iterator[tuple[str, Row]]:
    for where, value in _json_values(path, text):
        if not isinstance(value, dict):
            raise SlimvoxError(f"{where} must be a JSON object, but is {short(value)} instead.")
        row = {normalized(str(name)): item for name, item in value.items()}
        if not is_lhotse(row):
            check_columns([normalized(str(name)) for name in value], where)
        yield where[0].lower() + where[1:], row


def _json_values(path: Place, text: str) -> Iterator[tuple[str, Any]]:
    """Parse the rows, with their places: the items of a list, the values of an object, or one row per line."""
    try:
        try:
            whole = json.loads(text)
        except json.JSONDecodeError:
            for number, line in enumerate(io.StringIO(text, newline="\n"), start=1):
                if line.strip():
                    yield f"Line {number} of `{path}`", json.loads(line)
            return
    except RecursionError as error:
        raise SlimvoxError(
            f"`{path}` must hold a JSON object on each line, but is nested too deeply."
        ) from error
    except ValueError as error:
        raise SlimvoxError(
            f"`{path}` must hold a JSON object on each line, or one list or object of them, but is not valid JSON: "
            f"{error}."
        ) from error
    if isinstance(whole, list):
        yield from ((f"Item {number} of `{path}`", value) for number, value in enumerate(whole, start=1))
    elif isinstance(whole, dict) and whole and all(isinstance(value, dict) for value in whole.values()):
        yield from ((f"Entry {short(name)} of `{path}`", value) for name, value in whole.items())
    else:
        yield f"Line 1 of `{path}`", whole


def _source(row: Row, where: str, neighbours: _Neighbours) -> AudioSource:
    if is_lhotse(row):
        return lhotse_source(row, where, neighbours.folder)
    name = file_of(row, where)
    identifier = row.get(ID_COLUMN)
    if name is None and (identifier is None or not str(identifier).strip()):
        raise SlimvoxError(f"The path in {where} must not be empty: fill it in, or remove the row.")
    if (
        name is not None
        and (found := _PLACEHOLDER.match(name))
        and not os.path.exists(joined_path(neighbours.folder, name))
    ):
        raise SlimvoxError(
            f"The path in {where} begins with the placeholder `{found[0]}`: put the folder in its place."
        )
    stretch = stretch_of(row, where)
    if name is None:
        file: AudioFile = neighbours.find(str(identifier).strip())
    elif row.get("shard_id") is not None:
        file = neighbours.in_shard(f"audio_{row['shard_id']}.tar", name)
    else:
        file = joined_path(neighbours.folder, name)
    return AudioSource(
        path=file,
        offset_seconds=stretch.offset_seconds,
        seconds=stretch.seconds,
        channel=stretch.channel,
    )
