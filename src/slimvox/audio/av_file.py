"""Decoding of files that libsndfile does not decode, such as m4a and webm, with PyAV (FFmpeg's libraries)."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

UNKNOWN_FRAMES = 1 << 62
"""Number of frames used for a file whose header does not give it, larger than any real one."""
_EXACT_FORMATS = {"mov", "mp4", "m4a", "3gp", "matroska", "webm"}
"""Containers whose headers give the duration; of others FFmpeg guesses it from the bit rate."""


def has_av() -> bool:
    """True if PyAV is installed."""
    return find_spec("av") is not None


class AVFile:
    """The first audio stream of a file, with the methods of `soundfile.SoundFile` that decoding uses."""

    format, subtype, name = "AV", "", ""

    def __init__(self, source: str | BinaryIO) -> None:
        import av

        self._errors, self._source = av.FFmpegError, source
        try:
            self._container: Any = av.open(source, metadata_errors="ignore")
        except av.FFmpegError as error:
            raise OSError(str(error)) from error
        if not self._container.streams.audio:
            self.close()
            raise OSError("it has no sound")
        self._stream: Any = self._container.streams.audio[0]
        self.samplerate, self.channels = int(self._stream.rate), int(self._stream.channels)
        self.frames = UNKNOWN_FRAMES
        if _EXACT_FORMATS & set(self._container.format.name.split(",")):
            seconds = None
            if self._stream.duration is not None:
                seconds = float(self._stream.duration * self._stream.time_base)
            elif self._container.duration is not None:
                seconds = self._container.duration / av.time_base
            self.frames = UNKNOWN_FRAMES if seconds is None else round(seconds * self.samplerate)
        self._blocks = self._decoded(0)
        self._left = np.zeros((0, self.channels), dtype=np.float32)

    def __enter__(self) -> AVFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, and the recording that it was read from."""
        self._container.close()
        if not isinstance(self._source, str):
            self._source.close()

    def seek(self, frame: int) -> None:
        """Move to a frame; raises `OSError` if times in the file are not exact to a frame."""
        if self._stream.time_base * self.samplerate != 1:
            raise OSError("no seeking")
        # The decoder needs the packets before the start.
        before = max(0.0, frame / self.samplerate - 0.5)
        self._container.seek(int(before / self._stream.time_base), stream=self._stream)
        self._blocks = self._decoded(frame)
        self._left = self._left[:0]

    def read(self, frames: int, dtype: str = "float32", always_2d: bool = True) -> npt.NDArray[np.float32]:
        """The next frames (frames, channels); fewer at the end."""
        blocks, count = [self._left], len(self._left)
        while count < frames and (block := next(self._blocks, None)) is not None:
            blocks.append(block)
            count += len(block)
        joined = np.concatenate(blocks)
        self._left = joined[frames:]
        return joined[:frames]

    def _decoded(self, first: int) -> Iterator[npt.NDArray[np.float32]]:
        """Blocks (frames, channels) from a frame onwards."""
        from av.audio.resampler import AudioResampler

        # Only the sample type is converted.
        resampler = AudioResampler(format="fltp", layout=self._stream.layout, rate=self.samplerate)
        position: int | None = None
        try:
            for frame in self._container.decode(self._stream):
                if position is None:
                    position = round(float(frame.pts * frame.time_base) * self.samplerate) if frame.pts else 0
                for part in resampler.resample(frame):
                    block = part.to_ndarray().T
                    position += len(block)
                    if position > first:
                        yield np.ascontiguousarray(block[max(0, len(block) - (position - first)) :])
        except self._errors as error:
            raise OSError(str(error)) from error
