"""Output directory of a run: its owner, its progress, and the files needed for resuming."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from slimvox.costs import Cost, cost_kind
from slimvox.pruning.backed_files import BACKUP, BackedFiles, copy_file
from slimvox.pruning.checked_files import (
    DamagedFileError,
    file_checksum,
    read_checked_json,
    read_checked_state,
)
from slimvox.pruning.micro_batches import Division
from slimvox.pruning.recipe import recorded_recipe
from slimvox.util.errors import SlimvoxError, reason_of
from slimvox.util.files import is_temporary, sweep_temporaries
from slimvox.util.quantities import share_name

SETTINGS, CHECKPOINT, CUT, LOG, LOCK = "settings.json", "checkpoint.pt", "cut.pt", "log.jsonl", "lock"
COST, OUTCOME, DIVISION, PACE = "cost.json", "outcome.json", "division.json", "pace.json"
LATENCY_TABLE = "latency_table.json"
"""The table of a target in time, for `--latency-table`."""
MODEL_FILES = ("model.safetensors", "config.json", "kept_indices.json", f"run/{OUTCOME}")
"""Files of a finished encoder that are read again when the run goes on, or is repeated."""
Content = TypeVar("Content")
logger = logging.getLogger("slimvox.pruning")


@dataclass(frozen=True, kw_only=True)
class RunDirectory:
    """Files of one run. The model is written to `path`, everything about the run to `path/run`.

    Every file needed for resuming has a checksum and a second copy (for a checkpoint, the one before it) in
    `path/run/backup`, which is read if the first is damaged.
    """

    path: Path

    @property
    def run(self) -> Path:
        """Folder of settings, checkpoints and logs."""
        return self.path / "run"

    @property
    def log(self) -> Path:
        """Log file with one JSON object per logged step."""
        return self.run / LOG

    @property
    def finished(self) -> bool:
        """True if the directory holds a finished run."""
        settings = self._settings()
        return settings is not None and settings["status"] == "finished"

    @property
    def is_cut(self) -> bool:
        """True if surgery is done."""
        return any(path.is_file() for path in self._files.places(CUT)) or self.finished

    def for_size(self, share: float) -> RunDirectory:
        """Directory of the encoder that keeps this share of the dense one, in a run for several sizes."""
        return RunDirectory(path=self.path / f"keep-{share_name(share)}")

    def refuse_if_taken(self) -> None:
        """Raise `SlimvoxError` unless the directory is new, empty, or that of a run."""
        if self.path.exists() and not self.path.is_dir():
            raise SlimvoxError(f"`--out` {self.path} is a file; give a directory that is new or empty")
        try:
            taken = self.path.is_dir() and not self._holds_nothing()
        except OSError as error:
            raise SlimvoxError(f"`--out` {self.path} cannot be read: {reason_of(error)}") from error
        if taken and self._settings() is None:
            raise SlimvoxError(f"`--out` {self.path} is not empty; give a directory that is new or empty")

    def claim(self, fingerprint: Mapping[str, Any]) -> bool:
        """Claim the directory for this run, unless it is the run's already; True if the run is finished.

        A run of another command that ended before its first checkpoint gives way.

        Raises:
            SlimvoxError: if it holds something else, another run, or cannot be written.
        """
        self.refuse_if_taken()
        settings = self._settings()
        if settings is None:
            with self._writable():
                self.run.mkdir(parents=True, exist_ok=True)
                self._write_settings(fingerprint, "unfinished")
        else:
            before, finished = dict(settings["fingerprint"]), settings["status"] == "finished"
            if finished or before.get("processes") == 1:
                # Earlier versions had a batch per process: runs of several are other runs than they would be now.
                before.pop("processes", None)
            if isinstance(before.get("recipe"), dict):
                with contextlib.suppress(SlimvoxError):  # another recipe, then
                    before["recipe"] = recorded_recipe(before["recipe"])
            changed = ", ".join(
                sorted(key for key in {*before, *fingerprint} if before.get(key) != fingerprint.get(key))
            )
            if changed and not finished and self._is_without_progress():
                with self._writable():
                    self._clear()
                    self._write_settings(fingerprint, "unfinished")
            elif changed:
                raise SlimvoxError(
                    f"`--out` {self.path} already holds the finished run of another command (different {changed}); give"
                    " another directory, or delete this one first"
                    if finished
                    else f"`--out` {self.path} holds the unfinished run of another command (different {changed});"
                    " repeat that command to resume it, give another directory, or delete this one first"
                )
            if finished:
                self._forget_state()
        for folder in (self.path, self.run, self.run / BACKUP):
            sweep_temporaries(folder)
        return self.finished

    def finish(self, fingerprint: Mapping[str, Any]) -> None:
        """Mark the run as finished and remove its checkpoints.

        Raises:
            SlimvoxError: if that cannot be written.
        """
        with self._writable():
            files = {
                name: file_checksum(self.path / name) for name in MODEL_FILES if (self.path / name).is_file()
            }
            self._write_settings(fingerprint, "finished", files)
        self._forget_state()

    def check_model_files(self) -> None:
        """Raise `SlimvoxError` if a file of the finished encoder is not the one that the run wrote."""
        for name, written in ((self._settings() or {}).get("files") or {}).items():
            path = self.path / name
            try:
                intact = file_checksum(path) == written
            except OSError:
                intact = False
            if not intact:
                raise SlimvoxError(
                    f"{path} is not the file that the run wrote (damaged, edited or deleted); delete"
                    f" {self._whole_run} and start again"
                )

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

    def copy_log(self, other: RunDirectory) -> None:
        """Copy the log to another directory, of a size of the same run.

        Raises:
            SlimvoxError: if it cannot be written.
        """
        with other._writable():
            copy_file(self.log, other.log)

    def load_cut(self) -> dict[str, Any]:
        """Load the result of surgery.

        Raises:
            SlimvoxError: if it is damaged or gone.
        """
        state = self._load(CUT, read_checked_state)
        if state is None:
            raise SlimvoxError(f"{self.run / CUT} is gone; delete {self._whole_run} and start again")
        return state

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

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the directory against other processes within this context.

        Raises:
            SlimvoxError: if another process works in it, or it cannot be written.
        """
        self.refuse_if_taken()
        lock = FileLock(self.run / LOCK, timeout=0)
        with self._writable():
            self.run.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire()
            except Timeout as error:
                raise SlimvoxError(f"another process is working in {self.path} right now") from error
        try:
            yield
        finally:
            lock.release()

    @property
    def _whole_run(self) -> Path:
        """The directory to delete to start again: for one of several sizes, that of the whole run."""
        above = RunDirectory(path=self.path.parent)
        return above.path if (above.run / SETTINGS).is_file() else self.path

    def _holds_nothing(self) -> bool:
        """True if the directory holds nothing but the remains of a run that was killed before it wrote its settings."""
        if any(each.name != "run" and not is_temporary(each.name) for each in self.path.iterdir()):
            return False
        if not self.run.is_dir():
            return not self.run.exists()
        names = {each.name for each in self.run.iterdir() if not is_temporary(each.name)}
        return names <= {LOCK} or (names <= {LOCK, BACKUP} and not any((self.run / BACKUP).iterdir()))

    def _is_without_progress(self) -> bool:
        """True if an unfinished run has neither a checkpoint nor anything else that a resumed run would read."""
        saved = any(place.exists() for name in (CHECKPOINT, CUT, COST) for place in self._files.places(name))
        return not saved and {each.name for each in self.path.iterdir()} == {self.run.name}

    def _clear(self) -> None:
        """Remove the files of a run, but not its lock."""
        for each in self.run.iterdir():
            if each.is_dir() and not each.is_symlink():
                shutil.rmtree(each)
            elif each.name != LOCK:
                each.unlink()

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

    def _settings(self) -> dict[str, Any] | None:
        def read(path: Path) -> dict[str, Any]:
            settings = read_checked_json(path)
            if not {"status", "fingerprint"} <= settings.keys():
                raise FileNotFoundError(path)  # written by another program
            if isinstance(settings["fingerprint"], dict):
                return settings
            raise DamagedFileError(path)

        return self._load(SETTINGS, read)

    def _write_settings(
        self, fingerprint: Mapping[str, Any], status: str, files: Mapping[str, str] | None = None
    ) -> None:
        content = {"status": status, "fingerprint": dict(fingerprint), **({"files": files} if files else {})}
        self._files.write_json(SETTINGS, content)

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
