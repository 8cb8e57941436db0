"""Record of skipped audio: each file is named once in the log, and counted by reason."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any

from slimvox.audio.recordings import AudioFile
from slimvox.audio.sources import SkipReason

logger = logging.getLogger("slimvox.audio")

WARNINGS_PER_REASON = 50
"""Number of files per reason that are named at level WARNING; further ones are named at INFO."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SkippedFile:
    """One file that was left out."""

    path: AudioFile
    reason: SkipReason
    detail: str


class SkipCounter:
    """Collects the files that were left out, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[tuple[AudioFile, float, SkipReason], SkippedFile] = {}
        self._counts: Counter[str] = Counter()

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            return {"_files": dict(self._files), "_counts": Counter(self._counts)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def add(self, path: AudioFile, reason: SkipReason, detail: str, *, offset_seconds: float = 0.0) -> None:
        """Count and log a file, or a stretch of a file, unless it was already counted for the same reason."""
        key = (path, offset_seconds, reason)
        with self._lock:
            if key in self._files:
                return
            self._files[key] = SkippedFile(path=path, reason=reason, detail=detail)
            self._counts[reason] += 1
            count = self._counts[reason]
        level = logging.WARNING if count <= WARNINGS_PER_REASON else logging.INFO
        logger.log(level, "Skipped `%s`: %s (%s).", path, reason, detail)
        if count == WARNINGS_PER_REASON:
            logger.warning("Further files skipped as %s are logged at level INFO only.", reason)

    @property
    def counts(self) -> dict[str, int]:
        """Number of files by reason."""
        with self._lock:
            return dict(self._counts)

    @property
    def files(self) -> tuple[SkippedFile, ...]:
        """All skipped files, in the order in which they were found."""
        with self._lock:
            return tuple(self._files.values())

    def summary(self) -> str:
        """Give counts with one example each: ``2 too short, such as `a.wav` (0.2 s); 1 missing, ...``."""
        examples: dict[str, SkippedFile] = {}
        for file in self.files:
            examples.setdefault(file.reason, file)
        counts = self.counts
        return "; ".join(
            f"{counts[file.reason]} {file.reason}, such as `{file.path}` ({file.detail})"
            for file in examples.values()
        )
