"""Decoded clips kept in memory, up to a number of bytes."""

from __future__ import annotations

import threading

from slimvox.audio.decode import FloatArray


class ClipCache:
    """Keeps the first clips that fit, by index, and never evicts one.

    Every epoch visits each clip about once. If not all fit, evicting the least recently used would evict each clip just
    before its next use, while keeping some saves exactly their share of the decoding.
    """

    def __init__(self, max_bytes: int) -> None:
        self._lock = threading.Lock()
        self._left = max_bytes
        self._clips: dict[int, FloatArray] = {}

    def get(self, clip: int) -> FloatArray | None:
        """Return the waveform (samples,) of a clip, read-only, or None."""
        with self._lock:
            return self._clips.get(clip)

    def put(self, clip: int, waveform: FloatArray) -> None:
        """Keep a waveform, if there is room; it becomes read-only."""
        with self._lock:
            if clip not in self._clips and waveform.nbytes <= self._left:
                waveform.setflags(write=False)
                self._clips[clip] = waveform
                self._left -= waveform.nbytes
