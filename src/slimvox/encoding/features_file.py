"""Files of hidden states, assembled from raw temporary files without holding any of them in memory."""

from __future__ import annotations

import json
import math
import shutil
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from slimvox.util.errors import SlimvoxError
from slimvox.util.json_files import parse_json

FeatureFormat = Literal["npz", "safetensors"]
FeatureDtype = Literal["float32", "float16"]

DTYPES: dict[FeatureDtype, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}

FRAME_RATE = "frame_rate_hz"
METADATA = "__metadata__"
ORIGIN = "origin"
_LONGEST_HEADER = 100_000_000
"""Maximum length of a header in the safetensors format."""
_SAFETENSORS_NAMES: dict[FeatureDtype, str] = {"float32": "F32", "float16": "F16"}
_COPY_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class RawArray:
    """A file with only the numbers of an array, row by row."""

    path: Path
    shape: tuple[int, ...]
    """(frames, width)."""


def write_features(
    path: Path,
    arrays: Mapping[str, RawArray],
    *,
    dtype: FeatureDtype,
    frame_rate_hz: float,
    format: FeatureFormat,
    origin: Mapping[str, Any],
) -> None:
    """Write `arrays` and the scalar `frame_rate_hz` (float64) to one file.

    Args:
        path: the file; an existing one is replaced.
        arrays: arrays by name; all of `dtype`, little-endian.
        dtype: data type of the arrays.
        frame_rate_hz: rows per second.
        format: `npz` (uncompressed, for `numpy.load`) or `safetensors`.
        origin: what the arrays were computed from, as JSON types; `read_origin` reads it again. It is the comment of
            the zip archive, or the metadata of the safetensors header.

    Raises:
        OSError: as the file system gives it.
    """
    write = _write_npz if format == "npz" else _write_safetensors
    write(path, arrays, dtype, frame_rate_hz, json.dumps(origin, sort_keys=True))


def read_origin(path: Path, format: FeatureFormat) -> dict[str, Any] | None:
    """The origin of a file of features.

    Returns:
        The argument `origin` of `write_features`; None if the file does not contain it, because it is from an earlier
        version, damaged, or something else.

    Raises:
        OSError: as the file system gives it.
    """
    try:
        text = _npz_comment(path) if format == "npz" else _safetensors_metadata(path)
        origin = parse_json(text, str(path))
    except (SlimvoxError, zipfile.BadZipFile, struct.error, KeyError, TypeError):
        return None
    return origin if isinstance(origin, dict) else None


def _npz_comment(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.comment


def _safetensors_metadata(path: Path) -> str:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = file.read(length) if length <= _LONGEST_HEADER else b""
    text = parse_json(header, str(path))[METADATA][ORIGIN]
    return str(text)


def _write_npz(
    path: Path, arrays: Mapping[str, RawArray], dtype: FeatureDtype, frame_rate_hz: float, origin: str
) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.comment = origin.encode()
        for name, array in arrays.items():
            header = {
                "descr": np.lib.format.dtype_to_descr(DTYPES[dtype]),
                "fortran_order": False,
                "shape": array.shape,
            }
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
                np.lib.format.write_array_header_1_0(entry, header)
                _copy(array.path, entry)
        with archive.open(zipfile.ZipInfo(f"{FRAME_RATE}.npy"), "w") as entry:
            np.lib.format.write_array(entry, np.asarray(frame_rate_hz, dtype="<f8"), allow_pickle=False)


def _write_safetensors(
    path: Path, arrays: Mapping[str, RawArray], dtype: FeatureDtype, frame_rate_hz: float, origin: str
) -> None:
    # The widest type comes first, so that all arrays are aligned.
    header: dict[str, Any] = {
        METADATA: {ORIGIN: origin},
        FRAME_RATE: {"dtype": "F64", "shape": [], "data_offsets": [0, 8]},
    }
    end = 8
    for name, array in arrays.items():
        start, end = end, end + math.prod(array.shape) * DTYPES[dtype].itemsize
        header[name] = {
            "dtype": _SAFETENSORS_NAMES[dtype],
            "shape": list(array.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + struct.pack("<d", frame_rate_hz))
        for array in arrays.values():
            _copy(array.path, file)


def _copy(path: Path, to: IO[bytes]) -> None:
    with path.open("rb") as file:
        shutil.copyfileobj(file, to, _COPY_BYTES)
