"""Output directory of a run: the command whose run it is, and whether the run is finished."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from slimvox.pruning.backed_files import BACKUP
from slimvox.pruning.checked_files import DamagedFileError, file_checksum, read_checked_json
from slimvox.pruning.recipe import recorded_recipe
from slimvox.pruning.run_state import CHECKPOINT, COST, CUT, SETTINGS, RunState
from slimvox.util.errors import SlimvoxError, reason_of
from slimvox.util.files import is_temporary, sweep_temporaries
from slimvox.util.quantities import share_name

LOCK, OUTCOME = "lock", "outcome.json"
LATENCY_TABLE = "latency_table.json"
"""The table of a target in time, for `--latency-table`."""
MODEL_FILES = ("model.safetensors", "config.json", "kept_indices.json", f"run/{OUTCOME}")
"""Files of a finished encoder that are read again when the run goes on, or is repeated."""


@dataclass(frozen=True, kw_only=True)
class RunDirectory(RunState):
    """Output directory of one run, which no other run may use. The model is written to `path`."""

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
            self._begin(fingerprint)
        else:
            self._go_on(settings, fingerprint)
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

    def _begin(self, fingerprint: Mapping[str, Any]) -> None:
        """Write the settings of a run that begins."""
        with self._writable():
            self.run.mkdir(parents=True, exist_ok=True)
            self._write_settings(fingerprint, "unfinished")

    def _go_on(self, settings: Mapping[str, Any], fingerprint: Mapping[str, Any]) -> None:
        """Go on with the run whose settings are in the directory; begin anew if it is another one without progress.

        Raises:
            SlimvoxError: if it is another run, with progress.
        """
        finished = settings["status"] == "finished"
        changed = ", ".join(_changed_fields(settings["fingerprint"], fingerprint, finished))
        if changed and not finished and self._is_without_progress():
            with self._writable():
                self._clear()
            self._begin(fingerprint)
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


def _changed_fields(recorded: Mapping[str, Any], fingerprint: Mapping[str, Any], finished: bool) -> list[str]:
    """Names of the fields in which a recorded fingerprint, possibly of an earlier version, differs from this run's."""
    before = dict(recorded)
    if finished or before.get("processes") == 1:
        # Earlier versions had a batch per process: runs of several are other runs than they would be now.
        before.pop("processes", None)
    if isinstance(before.get("recipe"), dict):
        with contextlib.suppress(SlimvoxError):  # another recipe, then
            before["recipe"] = recorded_recipe(before["recipe"])
    return sorted(key for key in {*before, *fingerprint} if before.get(key) != fingerprint.get(key))
