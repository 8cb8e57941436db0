"""From what a user names (files, folders, lists, manifests) to the audio that it means."""

# os.path answers False where Path methods raise (a folder without permission, an overlong name), and walking
# a million files with it is several times as fast.

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from slimvox.audio.manifests import MANIFEST_EXTENSIONS, read_manifest
from slimvox.audio.sources import AUDIO_EXTENSIONS, AudioSource, read_text
from slimvox.errors import SlimvoxError

logger = logging.getLogger("slimvox.audio")

LIST_EXTENSIONS = (".txt", ".lst")


def find_audio(sources: Sequence[str | Path]) -> list[AudioSource]:
    """List all audio that `sources` mean, in a fixed order, each stretch once.

    A source is an audio file, a folder (searched recursively, hidden files left out; a manifest in it is not
    read), a ``.txt`` or ``.lst`` list with one path a line (relative to the list's folder, ``#`` comments),
    or a manifest (see `slimvox.audio.manifests.read_manifest`). Where two sources name the same start of the
    same file, the first one counts. Files named by a list or manifest need not exist: scanning counts those
    that do not.

    Raises:
        SlimvoxError: no source given, a source that does not exist or is of no known kind, a folder, list or
            manifest with no audio in it, a manifest that cannot be understood.
    """
    if isinstance(sources, (str, os.PathLike)):
        sources = [sources]
    if not sources:
        raise SlimvoxError("No audio was given: name files, folders, lists or manifests.")
    found: dict[tuple[str, float], AudioSource] = {}
    for source in sources:
        for audio in _expand(Path(source).expanduser()):
            found.setdefault((os.path.abspath(audio.path), audio.offset_seconds), audio)
    return list(found.values())


def _expand(path: Path) -> list[AudioSource]:
    if os.path.isdir(path):
        return _read_folder(path)
    if not os.path.exists(path):
        raise SlimvoxError(f"The audio path `{path}` does not exist.")
    extension = path.suffix.lower()
    if extension in AUDIO_EXTENSIONS:
        return [AudioSource(path=path)]
    if extension in LIST_EXTENSIONS:
        return _read_list(path)
    if extension in MANIFEST_EXTENSIONS:
        return read_manifest(path)
    raise SlimvoxError(
        f"`{path}` must be a folder, an audio file ({_join(AUDIO_EXTENSIONS)}), "
        f"a list ({_join(LIST_EXTENSIONS)}) or a manifest ({_join(MANIFEST_EXTENSIONS)}), "
        f"but ends in '{path.suffix}' instead."
    )


def _read_folder(folder: Path) -> list[AudioSource]:
    found = [AudioSource(path=Path(path)) for path in _walk(folder)]
    if not found:
        raise SlimvoxError(
            f"The folder `{folder}` holds no audio: "
            f"no file in it or below it ends in {_join(AUDIO_EXTENSIONS)}."
        )
    return found


def _walk(folder: Path) -> Iterator[str]:
    """Paths of the audio files below `folder`, sorted; each folder once, however many links lead to it."""
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
            if name.lower().endswith(AUDIO_EXTENSIONS) and not name.startswith("."):
                path = os.path.join(directory, name)
                # A pipe or a device would block its reader; a dangling link is left for the scan to count.
                if os.path.isfile(path) or os.path.islink(path):
                    yield path


def _read_list(path: Path) -> list[AudioSource]:
    lines = (line.strip() for line in read_text(path).split("\n"))
    found = [AudioSource(path=path.parent / line) for line in lines if line and not line.startswith("#")]
    if not found:
        raise SlimvoxError(f"The list `{path}` names no audio: it must hold one path on each line.")
    return found


def _join(extensions: Sequence[str]) -> str:
    return ", ".join(extensions)
