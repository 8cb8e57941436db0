"""The help of every command, and Ctrl-C before a command has begun."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from slimvox.cli.command import flags_of_lists, join_repeated_flags
from slimvox.cli.main import Command, run

COMMANDS = (
    *("prune", "inspect", "encode", "compare", "evaluate"),
    *("benchmark", "latency", "export", "report", "figures", "demo"),
)
CLASSES = [each.__origin__ for each in typing.get_args(Command)]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_prose_and_not_the_source(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit) as stopped:
        run([command, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert not re.findall(r"\{None\}|\(default: \)|\(default: None\)|\(default: False\)|STR", shown)
    # A default of 0 is a value, unlike those of flags.
    assert ("--seed INT" in shown) == ("(default: 0)" in shown)


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("command", COMMANDS)
def test_lines_of_the_help_are_broken_between_words(
    command: str, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    with pytest.raises(SystemExit):
        run([command, "--help"])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= width
    summary = " ".join(
        str(next(each for each in CLASSES if each.__name__.lower() == f"{command}command").__doc__).split()
    )
    assert summary in " ".join(shown.split())


def test_a_reader_may_stop_before_the_help_ends() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    # Short enough to stay in the buffer until the end.
    command = [sys.executable, "-m", "slimvox", "inspect", "--help"]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    ended = subprocess.run(
        command, stdout=writer, stderr=subprocess.PIPE, text=True, env=buffered, check=False
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_list_that_is_given_in_parts_is_one_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = flags_of_lists(Command)
    assert flags == {
        "--set",
        "--held-out",
        "--tasks",
        "--manifest",
        "--scores",
        "--benchmark",
        "--calibration",
    }
    given = [
        "prune",
        "m",
        "a",
        "--set",
        "a=1",
        "b=2",
        "--seed",
        "-1",
        "--held_out=h",
        "-v",
        "--set=c=3",
        "--held-out",
        "i",
    ]
    joined = ["prune", "m", "a", "--set", "a=1", "b=2", "c=3", "--seed", "-1", "--held_out=h", "i", "-v"]
    assert join_repeated_flags(given, flags) == joined
    assert join_repeated_flags(joined, flags) == joined
    # The field that is wrong was forgotten, and the run began without it.
    arguments = ["prune", "embedded", str(tmp_path), "--out", str(tmp_path / "out")]
    assert run([*arguments, "--set", "prune.nosuch=1", "--set", "prune.steps=1"]) == 2
    assert "prune.nosuch" in capsys.readouterr().err


@pytest.mark.parametrize("command", CLASSES)
def test_the_help_of_a_flag_is_one_line_that_begins_with_its_subject(command: type) -> None:
    hints = typing.get_type_hints(command, include_extras=True)
    for field in dataclasses.fields(command):
        (text,) = (extra.help for extra in hints[field.name].__metadata__ if getattr(extra, "help", None))
        assert "\n" not in text and "  " not in text and text.endswith(".")
        assert not re.match(r"(Of|What|Where)\b", text), (command, field.name, text)


SLOW_IMPORT = """
import os, signal, sys, threading, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
sys.meta_path.insert(0, Slow())
from slimvox.cli import main
main(["inspect", "embedded"])
"""


@pytest.mark.parametrize("module", ["tyro", "slimvox.cli.prune", "torch", "slimvox.checkpoint"])
def test_ctrl_c_while_modules_are_imported_is_one_line(module: str, tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-c", SLOW_IMPORT.format(module=module)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert process.returncode == 128 + signal.SIGINT
    assert process.stderr == "interrupted\n"
