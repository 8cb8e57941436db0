"""Stop requests, kills and full disks at every point of a run, and what a finished run says when it is repeated."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import slimvox
from slimvox.cli.main import run
from slimvox.pruning import backed_files, progress, run_output, stage
from slimvox.pruning.interrupts import StopRequests
from slimvox.pruning.run_directory import RunDirectory
from slimvox.util.files import atomic_file, sweep_temporaries, write_atomically
from tiny_runs import SETTINGS, make_run


def weights(out: Path) -> bytes:
    return (out / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def finished(teacher: Path, speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an uninterrupted run."""
    return make_run(tmp_path_factory.mktemp("whole") / "out", teacher, speech).directory


def before(owner: Any, name: str, patch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Have something happen before a method is called."""
    method = getattr(owner, name)

    def acting(*arguments: Any, **options: Any) -> Any:
        act()
        return method(*arguments, **options)

    patch.setattr(owner, name, acting)


MOMENTS: dict[str, tuple[Any, str, signal.Signals]] = {
    "while stage 1 is cut": (run_output, "slice_student", signal.SIGINT),
    "after stage 1": (RunDirectory, "forget_checkpoint", signal.SIGTERM),
    "before stage 1": (stage.Stage, "__post_init__", signal.SIGINT),
    "while the result is written": (run_output, "write_result", signal.SIGTERM),
    "once the run is finished": (RunDirectory, "_forget_state", signal.SIGINT),
}


@pytest.mark.parametrize("moment", list(MOMENTS))
def test_a_stop_request_is_never_swallowed(
    moment: str,
    finished: Path,
    teacher: Path,
    speech: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owner, method, number = MOMENTS[moment]
    handler, asked = signal.getsignal(number), []

    def ask_once() -> None:
        if not asked:
            asked.append(number)
            signal.raise_signal(number)

    with monkeypatch.context() as patch:
        before(owner, method, patch, ask_once)
        with pytest.raises(slimvox.RunInterrupted, match="saved; the same call resumes from there"):
            make_run(tmp_path / "out", teacher, speech)
    assert asked and signal.getsignal(number) == handler
    make_run(tmp_path / "out", teacher, speech)
    assert weights(tmp_path / "out") == weights(finished)


def test_a_second_request_interrupts_at_once_where_there_is_one_process() -> None:
    with StopRequests() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    with StopRequests(patient=True) as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert stop.requested


def test_signals_that_are_ignored_stay_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        signal, "getsignal", lambda number: None if number == signal.SIGINT else signal.SIG_IGN
    )
    handlers = []
    monkeypatch.setattr(signal, "signal", lambda *arguments: handlers.append(arguments))
    with StopRequests():
        pass
    assert handlers == []


def test_a_run_in_another_thread_leaves_signals_alone(
    finished: Path, teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers, failures = (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)), []

    def look() -> None:
        if (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) != handlers:
            failures.append("changed")

    before(stage.Stage, "_train_step", monkeypatch, look)
    # Threads start with gradients on, and with the intra-op threads of the main one.
    thread = threading.Thread(target=make_run, args=(tmp_path / "out", teacher, speech))
    thread.start()
    thread.join()
    assert not failures and weights(tmp_path / "out") == weights(finished)


def test_a_caller_without_gradients_gets_the_same_encoder(
    finished: Path, teacher: Path, speech: Path, tmp_path: Path
) -> None:
    with torch.no_grad(), torch.inference_mode():
        result = make_run(tmp_path / "out", teacher, speech)
        assert not torch.is_grad_enabled() and torch.is_inference_mode_enabled()
    assert weights(tmp_path / "out") == weights(finished)
    assert not any(parameter.is_inference() for parameter in result.encoder.parameters())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_directory_without_settings_yet_is_taken_up(
    error: BaseException,
    finished: Path,
    teacher: Path,
    speech: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed, or out of room, between making OUT/run and writing the settings."""
    out = tmp_path / "out"

    def failing(path: Path, content: Any) -> None:
        (path.parent / ".slimvox-1-0.tmp").write_bytes(b"half of it")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(backed_files, "write_checked_json", failing)
        message = "out cannot be written: No space left on device" if isinstance(error, OSError) else None
        with pytest.raises((slimvox.SlimvoxError, KeyboardInterrupt), match=message):
            make_run(out, teacher, speech)
    assert [path.name for path in out.iterdir()] == ["run"]
    make_run(out, teacher, speech)
    assert weights(out) == weights(finished) and not list(out.rglob("*.tmp"))


def test_a_foreign_run_folder_is_left_alone(teacher: Path, speech: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text('{"mine": 1}')
    with pytest.raises(slimvox.SlimvoxError, match="is not empty"):
        make_run(tmp_path, teacher, speech)
    (tmp_path / "run" / "settings.json").rename(tmp_path / "run" / "notes.txt")
    with pytest.raises(slimvox.SlimvoxError, match="is not empty"):
        make_run(tmp_path, teacher, speech)
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "notes.txt"]


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    out = RunDirectory(path=tmp_path / "out")
    code = "import sys; from pathlib import Path; from slimvox.pruning.run_directory import RunDirectory\n"
    code += "with RunDirectory(path=Path(sys.argv[1])).locked(): pass"
    command = [sys.executable, "-c", code, str(out.path)]
    refusal = pytest.raises(slimvox.SlimvoxError, match=r"another process is working in .*out right now")
    with out.locked(), refusal, out.locked():
        pass
    with out.locked():
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "another process is working in" in refused.stderr
    with out.locked():  # free again
        pass


def test_leftovers_of_killed_processes_are_swept_and_files_in_use_are_not(tmp_path: Path) -> None:
    dead, alive, other = (tmp_path / name for name in (".slimvox-1-0.tmp", ".slimvox-1-1.tmp", "notes.tmp"))
    for path in (dead, alive, other):
        path.write_bytes(b"half of it")
    with alive.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        sweep_temporaries(tmp_path)
        assert sorted(tmp_path.iterdir()) == [alive, other]
    folder = tmp_path / "folder"
    folder.mkdir()
    alive.rename(folder / alive.name)
    write_atomically(folder / "file", b"whole")
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_a_failed_write_leaves_the_old_file_and_names_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def run_out_of_room() -> None:
        with atomic_file(path) as file:
            file.write(b"new")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left on device") as caught:
        run_out_of_room()
    assert caught.value.filename == str(path)
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("file", b"old")]
    with pytest.raises(FileNotFoundError) as caught:
        write_atomically(tmp_path / "nowhere" / "file", b"")
    assert caught.value.filename == str(tmp_path / "nowhere" / "file")


def test_a_log_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    log = progress.JsonLog(tmp_path / "nowhere" / "log.jsonl")
    with pytest.raises(slimvox.SlimvoxError, match=r"nowhere/log\.jsonl cannot be written: No such file"):
        log.write({})


def test_a_finished_run_that_is_repeated_says_so(
    teacher: Path, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [f"{name}={value}" for name, value in SETTINGS.items()]
    command = ["prune", str(teacher), str(speech), "--out", str(tmp_path / "out"), "--recipe", "quick"]
    command += ["--device", "cpu", "--sizes", "50%,28%", "--set", *overrides]
    assert run(command) == 0
    first = capsys.readouterr().out
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")}
    for folder in ("", "run", "keep-28", "keep-28/run"):
        (tmp_path / "out" / folder / ".slimvox-1-0.tmp").write_bytes(b"of a killed process")
    assert run(command) == 0
    second = capsys.readouterr().out
    assert "already holds this run, which is finished" in second.replace("\n", " ")
    assert second[second.index("┏") :] == first[first.index("┏") :]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")} == times
    assert run([*command[:-1], "data.max_seconds=0.9"]) == 2
    assert "finished run of another command (different recipe)" in capsys.readouterr().err.replace("\n", " ")


def test_requests_that_make_no_sense_are_one_sentence(teacher: Path, speech: Path, tmp_path: Path) -> None:
    wrong: dict[str, tuple[Any, str]] = {
        "control": (
            "nosuch",
            "`control` must be one of random, magnitude, top-layers, thin, but is 'nosuch' instead",
        ),
        "seed": (-1, "`seed` must be at least 0, but is -1 instead"),
        "checkpoint_seconds": (
            float("nan"),
            "`checkpoint_seconds` must be a finite number, but is nan instead",
        ),
    }
    for name, (value, message) in wrong.items():
        with pytest.raises(slimvox.SlimvoxError) as caught:
            make_run(tmp_path / "out", teacher, speech, **{name: value})
        assert str(caught.value) == message
    assert not (tmp_path / "out").exists()
