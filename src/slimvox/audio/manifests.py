"""Manifests: tables that name audio files, one to a row."""

# os.path answers False where Path methods raise (a folder without permission, an overlong name).

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from slimvox.audio.sources import AUDIO_EXTENSIONS, AudioSource, read_text
from slimvox.errors import SlimvoxError

MANIFEST_EXTENSIONS = (".tsv", ".csv", ".jsonl", ".json", ".ndjson")
PATH_COLUMNS = ("path", "file", "audio", "audio_filepath", "filename", "file_name", "audio_path", "wav")
ID_COLUMN = "id"
SECONDS_COLUMNS = ("seconds", "duration", "duration_seconds")
OFFSET_COLUMNS = ("offset", "start", "offset_seconds", "start_seconds")

Row = Mapping[str, Any]


def read_manifest(path: Path) -> list[AudioSource]:
    """List the audio that a manifest names, in its order.

    TSV and CSV with a header, JSON with one object a line (as NeMo writes it) or one list of objects, and the
    TSV of fairseq (a folder on the first line, then path and length). The file of a row is its `PATH_COLUMNS`
    value, relative to the manifest's folder, or, where there is only an `id`, the file ``ID.<extension>``
    there. The stretch of the file is given by `OFFSET_COLUMNS` and `SECONDS_COLUMNS`; where empty, it is the
    whole file.

    Raises:
        SlimvoxError: unreadable text, no rows, no column that names a file, or a value that is no number of
            seconds.
    """
    neighbours = _Neighbours(path.parent)
    found = [_source(row, f"line {line} of `{path}`", neighbours) for line, row in _rows(path)]
    if not found:
        raise SlimvoxError(f"The manifest `{path}` names no audio: it has no rows.")
    return found


class _Neighbours:
    """Finds ``ID.<extension>`` below a folder, listing each subfolder once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: dict[Path, dict[str, str]] = {}

    def find(self, name: str) -> Path:
        """Path of the audio file whose name without its extension is `name`, else the path `name` itself."""
        path = self.folder / name
        if path.parent not in self._names:
            self._names[path.parent] = self._list(path.parent)
        return path.parent / self._names[path.parent].get(path.name, path.name)

    @staticmethod
    def _list(folder: Path) -> dict[str, str]:
        try:
            names = os.listdir(folder)
        except (OSError, ValueError):
            return {}
        audio = [(stem, extension) for stem, extension in map(os.path.splitext, names)]
        audio = [pair for pair in audio if pair[1].lower() in AUDIO_EXTENSIONS]
        audio.sort(key=lambda pair: AUDIO_EXTENSIONS.index(pair[1].lower()), reverse=True)
        return {stem: stem + extension for stem, extension in audio}


def _rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Line numbers (from 1) and values by lower-case column name."""
    text = read_text(path)
    if path.suffix.lower() in (".tsv", ".csv"):
        return _table_rows(path, text)
    return _json_rows(path, text)


def _table_rows(path: Path, text: str) -> Iterator[tuple[int, Row]]:
    is_tsv = path.suffix.lower() == ".tsv"
    root = text.split("\n", maxsplit=1)[0].strip()
    is_header = "\t" in root or root.lower() in ("", *PATH_COLUMNS, ID_COLUMN)
    if is_tsv and not is_header and os.path.isdir(path.parent / root):
        for number, line in enumerate(text.split("\n")[1:], start=2):
            if line.strip():
                yield number, {"path": os.path.join(root, line.split("\t")[0].strip())}
        return
    # Tab-separated text has no quoting: a lone quotation mark in a transcript must not swallow rows.
    reader = csv.DictReader(
        io.StringIO(text, newline=""),
        delimiter="\t" if is_tsv else ",",
        quoting=csv.QUOTE_NONE if is_tsv else csv.QUOTE_MINIMAL,
    )
    try:
        columns = [(name or "").strip().lower() for name in reader.fieldnames or ()]
        reader.fieldnames = columns
        _check_columns(columns, path)
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise SlimvoxError(f"Line {reader.line_num} of `{path}` cannot be read: {error}.") from error


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, Row]]:
    try:
        numbered: list[tuple[int, Any]]
        if text.lstrip().startswith("["):
            numbered = list(enumerate(json.loads(text), start=1))
        else:
            numbered = []
            for number, line in enumerate(text.split("\n"), start=1):
                if line.strip():
                    numbered.append((number, json.loads(line)))
    except json.JSONDecodeError as error:
        raise SlimvoxError(
            f"`{path}` must hold a JSON object on each line, or one list of them, but is no JSON: {error}."
        ) from error
    for number, value in numbered:
        if not isinstance(value, dict):
            raise SlimvoxError(
                f"Line {number} of `{path}` must be a JSON object, but is {_short(value)} instead."
            )
        row = {str(name).strip().lower(): item for name, item in value.items()}
        _check_columns(list(row), path)
        yield number, row


def _check_columns(columns: list[str], path: Path) -> None:
    if not any(name in columns for name in (*PATH_COLUMNS, ID_COLUMN)):
        raise SlimvoxError(
            f"The manifest `{path}` must have a column that names the audio file "
            f"({', '.join(PATH_COLUMNS)} or {ID_COLUMN}), "
            f"but has {', '.join(name for name in columns if name) or 'none'} instead."
        )


def _source(row: Row, where: str, neighbours: _Neighbours) -> AudioSource:
    name = _first(row, PATH_COLUMNS)
    identifier = _first(row, (ID_COLUMN,))
    if name is not None and not isinstance(name, str):
        raise SlimvoxError(f"The path in {where} must be text, but is {_short(name)} instead.")
    if name is None and identifier is None:
        raise SlimvoxError(f"The path in {where} must not be empty: fill it in, or remove the row.")
    seconds = _number(row, SECONDS_COLUMNS, where)
    return AudioSource(
        path=neighbours.folder / name if name is not None else neighbours.find(str(identifier)),
        offset_seconds=_number(row, OFFSET_COLUMNS, where) or 0.0,
        seconds=seconds,
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _first(row: Row, columns: tuple[str, ...]) -> Any:
    """Return the first value that is not empty, else None."""
    for column in columns:
        value = row.get(column)
        if isinstance(value, str):
            value = value.strip()
        if value is not None and value != "":
            return value
    return None


def _number(row: Row, columns: tuple[str, ...], where: str) -> float | None:
    value = _first(row, columns)
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0.0 <= number < math.inf:
        raise SlimvoxError(
            f"`{columns[0]}` in {where} must be a number of seconds from 0 up, "
            f"but is {_short(value)} instead."
        )
    return number
