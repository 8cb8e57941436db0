"""Ctrl-C and termination: finish the step, save, then stop."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

from slimvox.util.errors import SlimvoxError


class RunInterrupted(SlimvoxError):
    """Raised when a run is stopped by Ctrl-C or SIGTERM, after its state was saved; the same call resumes it."""


class StopRequests:
    """Context in which the first SIGINT or SIGTERM is remembered, and the second interrupts at once.

    With several processes the second one is remembered too: a launcher such as `torchrun` passes on the signal of a
    terminal that each process has received already, and kills processes that do not end in time.

    Signals are only taken over in the main thread, and not where they are ignored (`nohup`) or handled outside Python.
    Elsewhere nothing is changed, and nothing is ever requested.
    """

    def __init__(self, *, patient: bool = False) -> None:
        """Start without a request.

        Args:
            patient: remember the second signal as well.
        """
        self.requested = False
        self._patient = patient
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopRequests:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (None, signal.SIG_IGN):
                    self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested and not self._patient:
            raise KeyboardInterrupt
        self.requested = True
