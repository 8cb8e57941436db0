"""Progress of a run, as a progress bar in a terminal or plain lines elsewhere, and always as a JSONL log."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from slimvox.util.files import write_atomically
from slimvox.util.output_paths import writing

PLAIN_SECONDS = 15.0
"""Interval in seconds between printed lines without a terminal."""


class StageProgress:
    """Progress of one stage; use it in a `with` block."""

    def __init__(self, console: Console, title: str, *, steps: int, start: int, enabled: bool = True) -> None:
        self._console, self._title, self._steps = console, title, steps
        self._enabled = enabled
        self._live = enabled and console.is_terminal
        self._recent: deque[tuple[float, int, float]] = deque([(time.monotonic(), start, 0.0)], maxlen=200)
        self._audio_seconds = 0.0
        self._last_line = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[losses]}"),
            TextColumn("{task.fields[speed]}"),
            _TimeLeft(),
            console=console,
            disable=not self._live,
        )
        self._task = self._bar.add_task(title, total=steps, completed=start, losses="", speed="", left=None)

    def __enter__(self) -> StageProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    @property
    def audio_rate(self) -> float:
        """Seconds of audio per second, over the last steps."""
        (began, _, audio), (now, _, audio_now) = self._recent[0], self._recent[-1]
        return (audio_now - audio) / (now - began) if now > began else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Estimated time to the end of the stage."""
        (began, first, _), (now, last, _) = self._recent[0], self._recent[-1]
        if last == first:
            return None
        return (self._steps - last) * (now - began) / (last - first)

    def resize(self, steps: int) -> None:
        """Set the number of steps of the stage."""
        self._steps = steps
        self._bar.update(self._task, total=steps)

    def advance(self, step: int, audio_seconds: float, values: Mapping[str, float]) -> None:
        """Show that `step` steps are done; `values` as in the log."""
        self._audio_seconds += audio_seconds
        self._recent.append((time.monotonic(), step, self._audio_seconds))
        if not self._enabled:
            return
        losses = f"loss {values['distillation']:.3f}"
        if "sparsity" in values:
            losses += f" sparsity {values['sparsity']:.0%}→{values['target_sparsity']:.0%}"
        speed = f"{self.audio_rate:.0f}x"
        self._bar.update(self._task, completed=step, losses=losses, speed=speed, left=self.seconds_left)
        if not self._live and (time.monotonic() - self._last_line > PLAIN_SECONDS or step == self._steps):
            self._last_line = time.monotonic()
            left = clock(self.seconds_left)
            self._console.print(
                f"{self._title} {step}/{self._steps}  {losses}  {speed} real time  {left} left",
                highlight=False,
                soft_wrap=True,
            )


class JsonLog:
    """One JSON object per logged step, appended to a file."""

    def __init__(self, path: Path, *, enabled: bool = True) -> None:
        self._path, self._enabled = path, enabled

    def forget_after(self, stage: str, step: int) -> None:
        """Remove records that a resumed run logged after its checkpoint."""
        if not self._enabled or not self._path.is_file():
            return
        kept, order = [], ["prune", "finish"]
        for line in self._path.read_bytes().splitlines():
            try:
                record = json.loads(line)
                done = (order.index(record["stage"]), int(record["step"])) <= (order.index(stage), step)
            except (ValueError, KeyError, TypeError, RecursionError):
                continue  # a damaged line, or one that was being written when the process was killed
            if done:
                kept.append(line)
        with self._writing():
            write_atomically(self._path, b"".join(line + b"\n" for line in kept))

    def write(self, record: Mapping[str, object]) -> None:
        """Append a record.

        Raises:
            SlimvoxError: if it cannot be written.
        """
        if self._enabled:
            with self._writing(), self._path.open("a") as file:
                file.write(json.dumps(record) + "\n")

    def _writing(self) -> AbstractContextManager[None]:
        advice = "; the last checkpoint is kept: free some space, then repeat the same command to resume"
        return writing(self._path, advice)


class _TimeLeft(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(clock(task.fields.get("left")), style="progress.remaining")


def clock(seconds: float | None) -> str:
    """Format seconds as hours:minutes:seconds; dashes for None."""
    if seconds is None:
        return "-:--:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
