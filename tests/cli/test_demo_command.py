"""The demo as a user runs it, and stops it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from interruptions import interrupted_after
from slimvox.cli.main import run


def test_a_demo_that_is_stopped_says_so_and_the_next_one_runs_to_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    arguments = ["demo", "--out", str(out), "--max-steps", "2"]
    with interrupted_after("prune", 1, raises=SystemExit) as stopped:
        run(arguments)
    assert stopped.value.code == 128 + signal.SIGINT
    assert "the next demo starts from the beginning" in capsys.readouterr().out
    assert run(arguments) == 0
    text = capsys.readouterr().out
    assert all(title in text for title in ("dense", "learned gates", "random gates", "top layers dropped"))
    assert (out / "pruned" / "config.json").is_file()


def test_a_demo_leaves_what_no_demo_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert run(["demo", "--out", str(tmp_path)]) == 2
    assert "was not written by a demo" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "thesis.txt").read_text() == "mine"
