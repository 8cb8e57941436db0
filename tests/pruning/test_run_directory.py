"""The directory of a run: which other commands may use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import slimvox
from interruptions import interrupted_after
from slimvox.pruning import stage
from slimvox.pruning.checked_files import read_checked_json, write_checked_json
from tiny_runs import make_run


@pytest.fixture(scope="module")
def finished(teacher: Path, speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run."""
    return make_run(tmp_path_factory.mktemp("runs") / "finished", teacher, speech).directory


def test_a_finished_or_foreign_directory_is_left_alone(
    finished: Path, teacher: Path, speech: Path, tmp_path: Path
) -> None:
    weights = finished / "model.safetensors"
    before = weights.read_bytes()
    with pytest.raises(slimvox.SlimvoxError, match=r"finished run of another command \(different seed\)"):
        make_run(finished, teacher, speech, seed=1)
    assert weights.read_bytes() == before
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(slimvox.SlimvoxError, match="not empty"):
        make_run(tmp_path, teacher, speech)
    with pytest.raises(slimvox.SlimvoxError, match="is a file"):
        make_run(tmp_path / "notes.txt", teacher, speech)


def test_the_checkpoint_of_another_run_is_refused(teacher: Path, speech: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with interrupted_after("prune", 2):
        make_run(out, teacher, speech)
    for _ in range(2):
        with pytest.raises(
            slimvox.SlimvoxError, match=r"unfinished run of another command \(different seed\)"
        ):
            make_run(out, teacher, speech, seed=1)
        # A backup alone is enough.
        if (out / "run" / "checkpoint.pt").exists():
            (out / "run" / "checkpoint.pt").rename(out / "run" / "backup" / "checkpoint.pt")


def test_a_run_without_a_checkpoint_gives_way_to_another_command(
    teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def interrupted(self: stage.Stage, batches: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage.Stage, "_train_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make_run(out, teacher, speech)
    (out / "mine.txt").write_text("a file of the user")
    with pytest.raises(slimvox.SlimvoxError, match=r"unfinished run of another command \(different seed\)"):
        make_run(out, teacher, speech, seed=1)
    (out / "mine.txt").unlink()
    (out / "run" / "log.jsonl").write_text("{}\n")
    assert make_run(out, teacher, speech, seed=1).directory == out
    assert "{}" not in (out / "run" / "log.jsonl").read_text().splitlines()


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_that_an_earlier_version_began_on_several_processes_is_another_run(
    processes: int, teacher: Path, speech: Path, tmp_path: Path
) -> None:
    """They had a batch each; with one process nothing has changed."""
    out = tmp_path / "out"
    with interrupted_after("prune", 2):
        make_run(out, teacher, speech)
    settings = read_checked_json(out / "run" / "settings.json")
    assert "processes" not in settings["fingerprint"]
    settings["fingerprint"]["processes"] = processes
    write_checked_json(out / "run" / "settings.json", settings)
    if processes == 1:
        assert make_run(out, teacher, speech).directory == out
    else:
        with pytest.raises(slimvox.SlimvoxError, match=r"another command \(different processes\)"):
            make_run(out, teacher, speech)
