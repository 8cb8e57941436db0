"""A source of audio that is not part of slimvox: word times in NIST's CTM. docs/extending/source.md explains it."""

from __future__ import annotations

from collections.abc import Iterator

from slimvox.audio import AudioSource
from slimvox.audio.find import READERS, Reader
from slimvox.audio.remote import Place
from slimvox.audio.sources import read_text


def read_ctm(path: Place, watched: list[str]) -> Iterator[AudioSource]:
    """The segment from the first to the last word of each recording."""
    stretches: dict[str, tuple[float, float]] = {}
    for line in read_text(path).splitlines():
        recording, _, start, duration, *_ = line.split()
        first, _ = stretches.get(recording, (float(start), 0.0))
        stretches[recording] = first, float(start) + float(duration)
    for recording, (start, end) in stretches.items():
        yield AudioSource(path=path.parent / f"{recording}.wav", offset_seconds=start, seconds=end - start)


CTM = Reader(
    name="ctm",
    described="word times (.ctm)",
    accepts=lambda path: path.suffix == ".ctm",
    read=read_ctm,
)


def register() -> None:
    """Make it known."""
    READERS.register(CTM)
