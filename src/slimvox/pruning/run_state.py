"""Files that a run needs for resuming: checkpoints, the result of surgery, measurements and decisions."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from slimvox.costs import Cost, cost_kind
from slimvox.pruning.backed_files import BACKUP, BackedFiles, copy_file
from slimvox.pruning.checked_files import DamagedFileError, read_checked_json, read_checked_state
from slimvox.pruning.micro_batches import Division
from slimvox.util.errors import SlimvoxError, reason_of

SETTINGS, CHECKPOINT, CUT, LOG = "settings.json", "checkpoint.pt", "cut.pt", "log.jsonl"
COST, DIVISION, PACE = "cost.json", "division.json", "pace.json"
Content = TypeVar("Content")
logger = logging.getLogger("slimvox.pruning")


@dataclass(frozen=True, kw_only=True)
class RunState:
    """Everything about a run that is written to `path/run`.

    Every file needed for resuming has a checksum and a second copy (for a checkpoint, the one before it) in
    `path/run/backup`, which is read if the first is damaged.
    """

    path: Path
    """Output directory of the run."""

    @property
    def run(self) -> Path:
        """Folder of settings, checkpoints and logs."""
        return self.path / "run"

    @property
    def log(self) -> Path:
        """Log file with one JSON object per logged step."""
        return self.run / LOG

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Write a checkpoint; the last one is kept until this one is complete, and then as a backup.

        Raises:
            SlimvoxError: if it cannot be written (for instance on a full disk); the last one still exists.
        """
        self._save(CHECKPOINT, state)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The last checkpoint, or the one before if it is damaged; None if there is no intact one."""
        try:
            return self._load(CHECKPOINT, read_checked_state)
        except SlimvoxError:
            self._files.remove(CHECKPOINT)
            logger.warning(
                "%s is damaged, and there is none before it; the stage starts again", self.run / CHECKPOINT
            )
            return None

    def forget_checkpoint(self) -> None:
        """Remove the checkpoint of a finished stage."""
        self._files.remove(CHECKPOINT)

    def save_cut(self, state: Mapping[str, Any]) -> None:
        """Write the result of surgery, as `save_checkpoint` does."""
        (self.run / CUT).unlink(missing_ok=True)
        self._save(CUT, state)
        with self._writable():
            self._files.copy(CUT)

    def load_cut(self) -> dict[str, Any]:
        """Load the result of surgery.

        Raises:
            SlimvoxError: if it is damaged or gone.
        """
        state = self._load(CUT, read_checked_state)
        if state is None:
            raise SlimvoxError(f"{self.run / CUT} is gone; delete {self._whole_run} and start again")
        return state

    def copy_log(self, other: RunState) -> None:
        """Copy the log to another directory, of a size of the same run.

        Raises:
            SlimvoxError: if it cannot be written.
        """
        with other._writable():
            copy_file(self.log, other.log)

    def load_cost(self, kind: str) -> Cost | None:
        """The cost that an interrupted run measured; None if there is none, or one of another kind.

        Raises:
            SlimvoxError: if it is damaged.
        """

        def read(path: Path) -> Cost | None:
            try:
                data = read_checked_json(path)
                return cost_kind(kind).from_dict(data) if data["kind"] == kind else None
            except (TypeError, AttributeError, KeyError, ValueError) as error:
                raise DamagedFileError(path) from error

        return self._load(COST, read)

    def save_cost(self, cost: Cost) -> None:
        """Save a measured cost, so that the run continues with it after an interruption.

        Raises:
            SlimvoxError: if it cannot be written.
        """
        with self._writable():
            self._files.write_json(COST, cost.to_dict())

    def load_division(self, stage: str) -> Division | None:
        """The division of a stage's steps before it was interrupted; None if there is none, or it is damaged."""
        try:
            division = self._load(DIVISION, read_checked_json)
            return Division(**division["division"]) if division and division["stage"] == stage else None
        except (SlimvoxError, KeyError, TypeError):
            return None

    def save_division(self, stage: str, division: Division) -> None:
        """Save the division of a stage's steps, so that the run continues with it after an interruption.

        Raises:
            SlimvoxError: if it cannot be written.
        """
        with self._writable():
            self._files.write_json(DIVISION, {"stage": stage, "division": asdict(division)})

    def load_pace(self) -> dict[str, Any]:
        """The time used, and the steps decided for a limited time; empty if nothing was kept.

        Raises:
            SlimvoxError: if the file is damaged.
        """
        return self._load(PACE, read_checked_json) or {}

    def save_pace(self, content: Mapping[str, Any]) -> None:
        """Keep the time used and the steps decided.

        Raises:
            SlimvoxError: if they cannot be written.
        """
        with self._writable():
            self._files.write_json(PACE, content)

    @property
    def _whole_run(self) -> Path:
        """The directory to delete to start again: for one of several sizes, that of the whole run."""
        above = RunState(path=self.path.parent)
        return above.path if (above.run / SETTINGS).is_file() else self.path

    @property
    def _files(self) -> BackedFiles:
        return BackedFiles(folder=self.run)

    def _load(self, name: str, read: Callable[[Path], Content]) -> Content | None:
        try:
            return self._files.load(name, read, copy_is_older=name == CHECKPOINT)
        except DamagedFileError as error:
            raise SlimvoxError(f"{error} is damaged; delete {self._whole_run} and start again") from error

    def _save(self, name: str, state: Mapping[str, Any]) -> None:
        try:
            self._files.write_state(name, state)
        except OSError as error:
            raise SlimvoxError(
                f"{self.run / name} cannot be written (is the disk full?): {reason_of(error)}; the last checkpoint is"
                " kept: free some space, then repeat the same command to resume"
            ) from error

    def _forget_state(self) -> None:
        """Remove the files that only an unfinished run needs."""
        for name in (CHECKPOINT, CUT, DIVISION):
            (self.run / name).unlink(missing_ok=True)
        shutil.rmtree(self.run / BACKUP, ignore_errors=True)

    @contextlib.contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SlimvoxError(
                f"`--out` {self.path} cannot be written: {reason_of(error)}"
                + (f" ({error.filename})" if error.filename else "")
            ) from error
