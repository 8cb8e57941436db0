"""The directory a run writes to: whose it is, what it has done so far, what may go on."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from slimvox.checkpoint.directory import write_atomically
from slimvox.errors import SlimvoxError, first_line
from slimvox.latency import LatencyTable
from slimvox.units import share_name

SETTINGS, CHECKPOINT, CUT, LOG, LOCK = "settings.json", "checkpoint.pt", "cut.pt", "log.jsonl", "lock"
LATENCY = "latency.json"


@dataclass(frozen=True, kw_only=True)
class RunDirectory:
    """Files of one run. The model lands in `path`, everything about the run in `path/run`."""

    path: Path

    @property
    def run(self) -> Path:
        """Where settings, checkpoint and logs are."""
        return self.path / "run"

    @property
    def log(self) -> Path:
        """One JSON object per logged step."""
        return self.run / LOG

    @property
    def finished(self) -> bool:
        """Whether it holds a finished run."""
        settings = self._settings()
        return settings is not None and settings["status"] == "finished"

    @property
    def is_cut(self) -> bool:
        """Whether surgery is done."""
        return (self.run / CUT).is_file() or self.finished

    def of_size(self, share: float) -> RunDirectory:
        """Where the encoder goes that keeps this share of the dense one, in a run for several sizes."""
        return RunDirectory(path=self.path / f"keep-{share_name(share)}")

    def refuse_if_taken(self) -> None:
        """Raise `SlimvoxError` unless the directory is new, empty, or that of an unfinished run."""
        if self.path.exists() and not self.path.is_dir():
            raise SlimvoxError(f"`--out` {self.path} is a file; give a directory that is new or empty")
        try:
            taken = self.path.is_dir() and any(self.path.iterdir())
        except OSError as error:
            raise SlimvoxError(f"`--out` {self.path} can't be read: {error.strerror}") from error
        if not taken:
            return
        settings = self._settings()
        if settings is None:
            raise SlimvoxError(f"`--out` {self.path} is not empty; give a directory that is new or empty")
        if settings["status"] == "finished":
            raise SlimvoxError(
                f"`--out` {self.path} already holds a finished run; give another directory, or delete this one first"
            )

    def claim(self, fingerprint: Mapping[str, Any]) -> None:
        """Make the directory this run's, or find that it already is.

        Raises:
            SlimvoxError: if it holds something else, another run, or can't be written.
        """
        self.refuse_if_taken()
        settings = self._settings()
        if settings is not None:
            before = settings["fingerprint"]
            changed = sorted(
                key for key in {*before, *fingerprint} if before.get(key) != fingerprint.get(key)
            )
            if changed:
                raise SlimvoxError(
                    f"`--out` {self.path} holds the unfinished run of another command ({', '.join(changed)} differ);"
                    " repeat that command to go on with it, or give another directory"
                )
            return
        try:
            self.run.mkdir(parents=True, exist_ok=True)
            self._write_settings(fingerprint, "unfinished")
        except OSError as error:
            raise SlimvoxError(f"`--out` {self.path} can't be written: {error.strerror}") from error

    def finish(self, fingerprint: Mapping[str, Any]) -> None:
        """Mark the run as finished; its checkpoints are of no more use."""
        self._write_settings(fingerprint, "finished")
        self.forget_checkpoint()
        (self.run / CUT).unlink(missing_ok=True)

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Write a checkpoint so that the last one stays until this one is whole.

        Raises:
            SlimvoxError: if it can't be written (the disk is full, say); the last one is still there.
        """
        self._save(CHECKPOINT, state)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The last checkpoint; None if there is none yet.

        Raises:
            SlimvoxError: if it is damaged.
        """
        return self._load(CHECKPOINT)

    def forget_checkpoint(self) -> None:
        """The stage is over and what came of it is kept elsewhere."""
        (self.run / CHECKPOINT).unlink(missing_ok=True)

    def save_cut(self, state: Mapping[str, Any]) -> None:
        """Write what surgery left, as `save_checkpoint` does."""
        self._save(CUT, state)

    def load_cut(self) -> dict[str, Any] | None:
        """What surgery left; None if there was none yet.

        Raises:
            SlimvoxError: if it is damaged.
        """
        return self._load(CUT)

    def _save(self, name: str, state: Mapping[str, Any]) -> None:
        temporary = self.run / f"{name}.tmp"
        try:
            torch.save(dict(state), temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(self.run / name)
        except (OSError, RuntimeError) as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise SlimvoxError(
                f"the checkpoint can't be written to {self.run} (is the disk full?): {first_line(error)};"
                " the last one is kept: make room, then repeat the same command to go on"
            ) from error

    def _load(self, name: str) -> dict[str, Any] | None:
        path = self.run / name
        if not path.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged zip, pickle or tensor, each with exceptions of its own
            raise SlimvoxError(f"{path} is damaged: delete {self.path} and start again") from error
        return state

    def load_latency(self) -> LatencyTable | None:
        """The table that an interrupted run measured; None if there is none.

        Raises:
            SlimvoxError: if it is damaged.
        """
        path = self.run / LATENCY
        try:
            return LatencyTable.from_dict(json.loads(path.read_text()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise SlimvoxError(f"{path} is damaged: delete {self.path} and start again") from error

    def save_latency(self, table: LatencyTable) -> None:
        """Keep the table, so that the run goes on with it after an interruption."""
        try:
            write_atomically(self.run / LATENCY, json.dumps(table.to_dict(), indent=1).encode())
        except OSError as error:
            raise SlimvoxError(f"`--out` {self.path} can't be written: {error.strerror}") from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second process out of the directory while this one works in it."""
        try:
            import fcntl
        except ImportError:  # not on Windows
            yield
            return
        with (self.run / LOCK).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise SlimvoxError(f"another process is working in {self.path} right now") from error
            yield

    def _settings(self) -> dict[str, Any] | None:
        path = self.run / SETTINGS
        try:
            settings = json.loads(path.read_text())
            return settings if {"status", "fingerprint"} <= set(settings) else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise SlimvoxError(f"{path} is damaged: delete {self.path} and start again") from error

    def _write_settings(self, fingerprint: Mapping[str, Any], status: str) -> None:
        content = {"status": status, "fingerprint": dict(fingerprint)}
        write_atomically(self.run / SETTINGS, json.dumps(content, indent=1).encode())
