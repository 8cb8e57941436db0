"""Tar archives of audio, as WebDataset and lhotse Shar write them, read in place."""

from __future__ import annotations

import logging
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from slimvox.audio.recordings import ArchiveMember, AudioFile
from slimvox.audio.sources import AUDIO_EXTENSIONS, UNSUPPORTED_EXTENSIONS, AudioSource
from slimvox.util.errors import SlimvoxError, reason_of

logger = logging.getLogger("slimvox.audio")

SHARD_EXTENSION = ".tar"
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


def is_shard(name: str) -> bool:
    """True if a name is that of a tar archive, compressed or not."""
    return name.lower().endswith((SHARD_EXTENSION, ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"))


def expanded(name: str) -> list[str]:
    """Names that a name with numbers in braces stands for: `a-{00..11}.tar`, as WebDataset has them."""
    found = _BRACES.search(name)
    if found is None:
        return [name]
    first, last = found[1], found[2]
    numbers = range(int(first), int(last) + 1)
    head, tail = name[: found.start()], name[found.end() :]
    return [each for number in numbers for each in expanded(f"{head}{number:0{len(first)}}{tail}")]


def read_shards(shards: Sequence[AudioFile]) -> Iterator[AudioSource]:
    """List the audio in tar archives; archives without audio, or truncated ones, are named in the log.

    Raises:
        SlimvoxError: none of them holds audio, or one cannot be read.
    """
    found = 0
    for shard in shards:
        before = found
        for member in members(shard):
            if member.name.lower().endswith((*AUDIO_EXTENSIONS, *UNSUPPORTED_EXTENSIONS)):
                found += 1
                yield AudioSource(path=member)
        if found == before and len(shards) > 1:
            logger.warning("The shard `%s` holds no audio.", shard)
    if not found:
        raise SlimvoxError(
            f"The shard `{shards[0]}` holds no audio: none of its members ends in {', '.join(AUDIO_EXTENSIONS)}."
        )


def members(shard: AudioFile) -> Iterator[ArchiveMember]:
    """The files in a tar archive, hidden ones left out.

    Raises:
        SlimvoxError: it cannot be read, or is compressed.
    """
    count = 0
    try:
        with open(shard, "rb") if isinstance(shard, Path) else shard.open() as file:
            if file.read(6).startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")):
                raise SlimvoxError(
                    f"The shard `{shard}` is compressed, so that it cannot be read in place: unpack it to a .tar."
                )
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as archive:
                # Python 3.10 cannot ask for the next member of an archive without any.
                while archive.offset and (member := archive.next()) is not None:
                    # Otherwise a list of all members is kept.
                    archive.members = []  # type: ignore[attr-defined]
                    name = member.name.removeprefix("./")
                    if member.isreg() and not name.rpartition("/")[2].startswith("."):
                        count += 1
                        yield ArchiveMember(
                            archive=shard, member=name, start=member.offset_data, size=member.size
                        )
                # tarfile silently takes a damaged header for the end of the archive, which blocks of zeros mark.
                file.seek(archive.offset)
                if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise tarfile.ReadError("no mark of its end")
    except tarfile.ReadError as error:
        if not count:
            raise SlimvoxError(
                f"The shard `{shard}` cannot be read: it is not a tar archive ({error})."
            ) from error
        logger.warning("The shard `%s` is truncated: it ends after %d files.", shard, count)
    except OSError as error:
        raise SlimvoxError(f"The shard `{shard}` cannot be read: {reason_of(error)}.") from error
