"""Length of MP3 files whose header does not give it, by their frame headers.

An encoder may leave the table of contents (the Xing or Info frame) out, and files are joined end to end with the
table of the first. The decoder then guesses the length from the bit rate of the first frame, and stops there.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO

from slimvox.audio.recordings import PartedFile

_BIT_RATES_KBPS = {
    1: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Layer III, by MPEG version (2 stands for 2.5 too), for the indices from 1 on."""
_SAMPLE_RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
"""Sample rates by the version's bits."""
_WINDOW_BYTES = 1 << 20
_SEARCHED_BYTES = 1 << 16
"""Number of bytes after the tags in which the first frame is searched for."""
_TAG_TOLERANCE = 0.01
_TAG_BYTES_ALLOWED = 4096


@dataclass(frozen=True, slots=True)
class _Frame:
    """Fields of one frame's header."""

    kind: tuple[int, int]
    """Bits of the version, and of the sample rate; equal for all frames of a stream."""
    length: int
    """Number of bytes of the frame."""
    side_bytes: int
    """Number of bytes of side information after the header."""


class SplicedFile(PartedFile):
    """Some bytes followed by a file from an offset on."""

    def __init__(self, head: bytes, file: BinaryIO, offset: int) -> None:
        self._head, self._file, self._offset = head, file, offset
        super().__init__(len(head) + _size(file) - offset)

    def read_part(self, at: int, count: int) -> bytes:
        """Read from the head or from the file."""
        if at < len(self._head):
            return self._head[at : at + count]
        self._file.seek(self._offset + at - len(self._head))
        return self._file.read(count)

    def close(self) -> None:
        """Close the file too."""
        self._file.close()
        super().close()


def length_frame(file: BinaryIO) -> tuple[bytes, int] | None:
    """Make the frame that gives the length of an MP3 file, if it lacks one.

    Args:
        file: opened, seekable.

    Returns:
        The frame, and the offset in the file of the first frame that should follow it (see `SplicedFile`); None
        where the file's own first frame gives the length rightly, or the file is not Layer III.
    """
    start = _first_frame(file)
    if start is None:
        return None
    file.seek(start)
    head = file.read(4)
    frame = _parsed(head)
    assert frame is not None  # found by the same function
    file.seek(start)
    table = _table(file.read(frame.length), frame)
    behind = _size(file) - start
    if table is not None:
        table_bytes = table[1]
        if table_bytes and behind <= table_bytes * (1 + _TAG_TOLERANCE) + _TAG_BYTES_ALLOWED:
            return None
        start += frame.length
    counted = sum(1 for _ in _frames(file, start, frame.kind))
    if not counted or (table is not None and counted <= table[0] * (1 + _TAG_TOLERANCE) + 1):
        return None
    return _table_frame(head, frame, counted, _size(file) - start), start


def _size(file: BinaryIO) -> int:
    return file.seek(0, io.SEEK_END)


def _first_frame(file: BinaryIO) -> int | None:
    """Position of the first frame of Layer III after the tags, if there is one."""
    start = 0
    while True:
        file.seek(start)
        tag = file.read(10)
        if len(tag) < 10 or tag[:3] != b"ID3":
            break
        length = (tag[6] & 127) << 21 | (tag[7] & 127) << 14 | (tag[8] & 127) << 7 | tag[9] & 127
        start += 10 + length + (10 if tag[5] & 16 else 0)
    file.seek(start)
    window = file.read(_SEARCHED_BYTES)
    at = window.find(b"\xff")
    while at >= 0:
        frame = _parsed(window[at : at + 4])
        if frame is not None:
            following = _parsed(window[at + frame.length : at + frame.length + 4])
            is_last = at + frame.length >= len(window)
            if is_last or (following is not None and following.kind == frame.kind):
                return start + at
        at = window.find(b"\xff", at + 1)
    return None


def _table(frame_bytes: bytes, frame: _Frame) -> tuple[int, int] | None:
    """Frames and bytes (0 where not given) that a Xing or Info frame promises; None for another frame."""
    at = 4 + frame.side_bytes
    if frame_bytes[at : at + 4] not in (b"Xing", b"Info") or len(frame_bytes) < at + 16:
        return None
    flags, first, second = struct.unpack(">III", frame_bytes[at + 4 : at + 16])
    if not flags & 1:
        return 0, 0
    return first, second if flags & 2 else 0


def _table_frame(head: bytes, frame: _Frame, frames: int, size: int) -> bytes:
    """A frame of silence that holds the length of the stream."""
    # 128 or 64 kbit/s whatever the bit rate of the stream, which has room for the table. No checksum, no padding.
    version = 1 if frame.kind[0] == 3 else 2
    index = _BIT_RATES_KBPS[version].index(128 if version == 1 else 64) + 1
    header = bytes((0xFF, head[1] | 1, index << 4 | (head[2] & 0b1100), head[3]))
    parsed = _parsed(header)
    assert parsed is not None
    table = b"Xing" + struct.pack(">III", 3, frames, min(size + parsed.length, (1 << 32) - 1))
    return (header + bytes(frame.side_bytes) + table).ljust(parsed.length, b"\0")


def _frames(file: BinaryIO, start: int, kind: tuple[int, int]) -> Iterator[int]:
    """Positions of the frames of a stream; bytes between them are skipped."""
    at, window, window_at = start, b"", start
    while True:
        if at + 4 > window_at + len(window):
            file.seek(at)
            window, window_at = file.read(_WINDOW_BYTES), at
            if len(window) < 4:
                return
        place = at - window_at
        frame = _parsed(window[place : place + 4])
        if frame is not None and frame.kind == kind:
            yield at
            at += frame.length
        else:
            found = window.find(b"\xff", place + 1)
            at = window_at + (found if found >= 0 else len(window))


@lru_cache(maxsize=4096)
def _parsed(header: bytes) -> _Frame | None:
    """Fields of a header of four bytes; None if it is not one of Layer III."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0b1110_0110 != 0b1110_0010:
        return None
    version_bits = header[1] >> 3 & 3
    rate_index, bits = header[2] >> 2 & 3, header[2] >> 4
    if version_bits == 1 or rate_index == 3 or not 1 <= bits <= 14 or header[3] & 3 == 2:
        return None
    version = 1 if version_bits == 3 else 2
    is_mono = header[3] >> 6 == 3
    rate_hz = _SAMPLE_RATES_HZ[version_bits][rate_index]
    per_frame = 144_000 if version == 1 else 72_000
    return _Frame(
        kind=(version_bits, rate_index),
        length=per_frame * _BIT_RATES_KBPS[version][bits - 1] // rate_hz + (header[2] >> 1 & 1),
        side_bytes=(17 if is_mono else 32) if version == 1 else (9 if is_mono else 17),
    )
