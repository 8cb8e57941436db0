"""Runs of limited time: the pace is measured and the rest of the stages shortened."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from slimvox.pruning.run_directory import RunDirectory
from slimvox.pruning.timeline import Timeline
from slimvox.util.errors import SlimvoxError

MEASURED_STEPS = 5
"""Number of steps, after the first one, over which the pace is measured before the number of steps is decided; half of
the stage if it has fewer than twice as many."""
LEAST_STEPS = 100
"""Number of steps (or that of the recipe, if it has fewer) below which a run is refused."""
RESERVED = 0.03
"""Share of the time that is kept for surgery, checkpoints and files."""
MARGIN = 1.2
"""Factor of the time that is asked for if there is too little: the pace of the next run may be slower."""
LOOKS = 50
"""Approximate number of times per stage that the clock is checked."""
SHORTER, LONGER = 0.99, 1.1
"""Ratios of the possible to the planned number of steps below and above which a stage gets a new number."""


def clock() -> float:
    """Time in seconds, from an arbitrary start."""
    return time.monotonic()


@dataclass(frozen=True)
class TimeLimit:
    """Time in which a run is to end."""

    hours: float
    began: float = field(default_factory=lambda: clock())  # noqa: PLW0108 - tests replace `clock`
    """When the process started to work on the run, by `clock`."""


class TimeBudget:
    """Time limit of a run, time used over all its resumptions, and the number of steps of each stage.

    Used in the main process only. Its decisions are written to the run's directory at once, so that a resumed run
    takes the same steps.
    """

    def __init__(self, limit: TimeLimit | None, out: RunDirectory) -> None:
        """Read the time used and the decisions of earlier calls.

        Args:
            limit: time for the whole run; None to keep earlier decisions, or the recipe.
            out: directory of the run.
        """
        self._out, self._began = out, clock() if limit is None else limit.began
        self._seconds = None if limit is None else 3600 * limit.hours
        record = out.load_pace()
        self._used_before = float(record.get("used_seconds", 0.0))
        self._planned: bool = record.get("planned", False)
        self._measuring: float | None = record.get("measuring_seconds")
        self._turns: dict[str, list[list[int]]] = record.get("stages", {})

    @property
    def used(self) -> float:
        """Seconds in which a process worked on the run, up to now."""
        return self._used_before + clock() - self._began

    def save(self) -> None:
        """Write the time used and the decisions to the run's directory. A later call may limit the time."""
        self._out.save_pace(
            {
                "promised_seconds": self._seconds,
                "used_seconds": self.used,
                "planned": self._planned,
                "measuring_seconds": self._measuring,
                "stages": self._turns,
            }
        )

    @property
    def overdue(self) -> str | None:
        """Message for a run that took longer than its limit; None if it did not."""
        if self._seconds is None or self.used <= self._seconds:
            return None
        return f"the run took {self.used:.3g} s, more than the {self._seconds:.3g} s of `--hours`: " + (
            "the machine became slower after its number of steps was decided"
            if self._planned
            else "it has too few steps to measure its pace, so none were left out"
        )

    def timeline(self, stage: str, length: int) -> Timeline:
        """The steps of a stage as decided, or those of the recipe."""
        return Timeline(length, tuple((at, steps) for at, steps in self._turns.get(stage, ())))

    def pace(
        self, stage: str, *, ahead: int, measurements: int, measure: Callable[[], object]
    ) -> Callable[[int, Timeline], Timeline | None]:
        """Start to measure a stage.

        Args:
            stage: title of the stage.
            ahead: number of steps of the recipe in the stages after it.
            measurements: number of measurements of the distance to the teacher that are still to come.
            measure: function that measures it once; called before the first decision of a run.

        Returns:
            Function of the number of steps done and the current timeline, to be called after each step; returns a new
            timeline if one was decided. It raises `SlimvoxError` if the time is too short for any run.
        """
        seen: deque[tuple[float, int]] = deque(maxlen=11)
        following = 0

        def look(step: int, timeline: Timeline) -> Timeline | None:
            nonlocal following
            if not seen:  # the first step after a start is slower than the others
                seen.append((clock(), step))
                following = step + max(1, min(MEASURED_STEPS, (timeline.steps - step) // 2))
            if step < following or step >= timeline.steps:
                return None
            seen.append((clock(), step))
            seconds = (seen[-1][0] - seen[0][0]) / (step - seen[0][1])
            following = step + max(1, timeline.steps // LOOKS)
            if self._measuring is None:
                began = clock()
                measure()
                self._measuring = clock() - began
                later = [(when + self._measuring, at) for when, at in seen]
                seen.clear()
                seen.extend(later)
            return self._decide(stage, step, timeline, seconds, ahead, measurements)

        return look

    def _decide(
        self, stage: str, step: int, timeline: Timeline, seconds: float, ahead: int, measurements: int
    ) -> Timeline | None:
        assert self._seconds is not None and self._measuring is not None
        available = (1 - RESERVED) * self._seconds - self.used - measurements * self._measuring
        left = timeline.length - timeline.position(step)
        affordable = available / max(seconds, 1e-9)
        if not self._planned:
            least = min(LEAST_STEPS, timeline.length + ahead)
            if step + affordable < least:
                needed = MARGIN * (self._seconds - available + (least - step) * seconds) / 3600
                raise SlimvoxError(
                    f"`--hours {self._seconds / 3600:g}` is too short: at {seconds:.1f} s per step there is time for"
                    f" {max(0, int(step + affordable))} steps, and a run needs at least {least}; give at least"
                    f" {_rounded_up(needed)} hours, or less audio per step (`--set data.seconds_per_batch=...`)"
                )
        more = min(math.ceil(left), max(1, int(affordable * left / (left + ahead))))
        planned = timeline.steps - step
        first, self._planned = not self._planned, True
        if SHORTER * planned <= more <= LONGER * planned:
            if first:
                self.save()
            return None
        turned = timeline.turned(step, step + more)
        self._turns[stage] = [list(each) for each in turned.turns]
        self.save()
        return turned


def _rounded_up(hours: float) -> str:
    """Round up to two significant digits."""
    unit = 10.0 ** (math.floor(math.log10(hours)) - 1)
    return f"{math.ceil(hours / unit) * unit:g}"
