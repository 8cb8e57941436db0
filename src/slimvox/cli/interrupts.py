"""Ctrl-C while modules are imported.

Libraries in C++ react to a KeyboardInterrupt in the middle of their import with an abort or a traceback. Nothing that
needs cleaning up has been started by then, so the process may exit at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType

INTERRUPTED = 128 + signal.SIGINT
"""Exit status of a command that was stopped by Ctrl-C."""


@contextlib.contextmanager
def leave_when_interrupted() -> Iterator[None]:
    """Let Ctrl-C end the process within this context, with one line and status 130.

    Outside the main thread, or if a handler other than Python's own is installed, nothing changes.
    """
    try:
        before = signal.getsignal(signal.SIGINT)
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, _leave)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, before)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.stdout.flush()
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)
