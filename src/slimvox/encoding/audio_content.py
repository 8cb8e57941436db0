"""Identity of the audio that features were computed from."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from slimvox.audio.recordings import ArchiveMember, AudioFile
from slimvox.audio.remote import RemoteFile

_READ_BYTES = 1 << 20


def modified_ns(path: AudioFile) -> int | None:
    """Time at which the file with the audio was last modified, in ns; None for rows of data sets and URLs."""
    file = path.archive if isinstance(path, ArchiveMember) else path
    try:
        return file.stat().st_mtime_ns if isinstance(file, Path) else None
    except OSError:
        return None


def content_hash(path: AudioFile) -> str | None:
    """SHA-256 of the bytes of an audio file; None for URLs, which are not downloaded for it, and without a file."""
    if isinstance(path, RemoteFile) or (
        isinstance(path, ArchiveMember) and isinstance(path.archive, RemoteFile)
    ):
        return None
    try:
        if not isinstance(path, Path):
            return _hash(path)
        status = path.stat()
        return _hash_of_file(path, status.st_size, status.st_mtime_ns) if path.is_file() else None
    except OSError:
        return None


@lru_cache(maxsize=256)
def _hash_of_file(path: Path, size: int, modified_ns: int) -> str:
    """The hash of a file of this size and time, read once for all stretches of it."""
    return _hash(path)


def _hash(path: AudioFile) -> str:
    digest = hashlib.sha256()
    with path.open("rb") if isinstance(path, Path) else path.open() as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
