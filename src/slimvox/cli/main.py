"""`slimvox COMMAND ...`: parses and runs a command, and turns errors into one sentence and an exit status."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import logging
import os
import shutil
import sys
import textwrap
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TextIO, cast

import tyro
from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text

from slimvox._version import __version__
from slimvox.cli.benchmark import BenchmarkCommand
from slimvox.cli.command import flags_of_lists, join_repeated_flags
from slimvox.cli.compare import CompareCommand
from slimvox.cli.demo import DemoCommand
from slimvox.cli.encode import EncodeCommand
from slimvox.cli.evaluate import EvaluateCommand
from slimvox.cli.export import ExportCommand
from slimvox.cli.figures import FiguresCommand
from slimvox.cli.inspect import InspectCommand
from slimvox.cli.interrupts import INTERRUPTED, leave_when_interrupted
from slimvox.cli.latency import LatencyCommand
from slimvox.cli.prune import PruneCommand
from slimvox.cli.report import ReportCommand
from slimvox.util.environment import hub_token
from slimvox.util.errors import ColumnError, SlimvoxError, reason_of
from slimvox.util.validation import convert

Command = (
    Annotated[PruneCommand, tyro.conf.subcommand("prune")]
    | Annotated[InspectCommand, tyro.conf.subcommand("inspect")]
    | Annotated[EncodeCommand, tyro.conf.subcommand("encode")]
    | Annotated[CompareCommand, tyro.conf.subcommand("compare")]
    | Annotated[EvaluateCommand, tyro.conf.subcommand("evaluate")]
    | Annotated[BenchmarkCommand, tyro.conf.subcommand("benchmark")]
    | Annotated[LatencyCommand, tyro.conf.subcommand("latency")]
    | Annotated[ExportCommand, tyro.conf.subcommand("export")]
    | Annotated[ReportCommand, tyro.conf.subcommand("report")]
    | Annotated[FiguresCommand, tyro.conf.subcommand("figures")]
    | Annotated[DemoCommand, tyro.conf.subcommand("demo")]
)

BAD_INPUT = 2
"""Exit status for an invalid argument, or a file or folder that cannot be read or written."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its status."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 1 for an unusable result, 2 for bad input, 130 when interrupted."""
    _print_any_name()
    errors = Console(stderr=True, soft_wrap=True, markup=False)
    words = sys.argv[1:] if arguments is None else list(arguments)
    if "" in words:
        # Usually an unset shell variable; as a path it would mean the current folder.
        errors.print(_error("an argument is empty; give a value or omit it"), highlight=False)
        return BAD_INPUT
    if words == ["--version"]:
        print(f"slimvox {__version__}")
        return 0
    command: Any = None
    try:
        with leave_when_interrupted():
            try:
                command = parse(words)
            finally:
                sys.stdout.flush()
        _quieten_libraries(errors, verbose=getattr(command, "verbose", False))
        _check_flags(command)
        with leave_when_interrupted():
            for module in command.imports:
                importlib.import_module(module)
        with hub_token(getattr(command, "token", None)):
            command.run(Console(highlight=False, markup=False))
    except SlimvoxError as error:
        text = str(error)
        if command is not None and not isinstance(error, ColumnError):
            text = command.with_flags(text)
        errors.print(_error(text), highlight=False)
        return error.exit_status
    except KeyboardInterrupt:
        errors.print("interrupted", highlight=False)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe has closed it, as in `slimvox inspect ... | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # The error of a full disk while writing to an open file has no file name.
        where = error.filename or getattr(command, "out", None)
        text = f"{reason_of(error)}{f': {where}' if where else ''}"
        errors.print(_error(text), highlight=False)
        return BAD_INPUT
    return 0


def _error(text: str) -> Text:
    return Text.assemble(("error:", "bold red"), " ", text)


def parse(words: Sequence[str]) -> Any:
    """Parse the arguments of `slimvox` as a command; if that is impossible, print help or the error and exit."""
    with contextlib.redirect_stdout(cast(TextIO, _WordWrap(sys.stdout))):
        return tyro.cli(
            # Without a help text tyro would search for one in its own source, a tenth of the start-up time.
            Annotated[Command, tyro.conf.arg(name="", help="")],
            prog="slimvox",
            description=f"Structured pruning of self-supervised speech encoders, version {__version__}.",
            args=join_repeated_flags(words, flags_of_lists(Command)),
            config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff),
        )


class _WordWrap:
    """Stream that breaks long lines between words, which tyro does only in its tables."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        width = shutil.get_terminal_size().columns
        wrapped = [
            textwrap.fill(line, width, break_on_hyphens=False) if line[:1].isalpha() else line
            for line in text.split("\n")
        ]
        return self._stream.write("\n".join(wrapped))


def _print_any_name() -> None:
    """Make standard output escape file names that are not valid UTF-8 instead of raising an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _check_flags(command: Any) -> None:
    """Check flags before anything is loaded; raise SlimvoxError if a number is not finite or out of range, or a path is
    impossible.
    """
    hints = typing.get_type_hints(type(command), include_extras=True)
    for field in dataclasses.fields(command):
        value, name = getattr(command, field.name), f"--{field.name.replace('_', '-')}"
        convert(hints[field.name], value, name)
        for each in value if isinstance(value, tuple) else (value,):
            try:
                Path(each if isinstance(each, str | Path) else "").expanduser()
            except RuntimeError as error:
                raise SlimvoxError(f"{each} cannot be found: there is no such user") from error
    try:
        str(getattr(command, "out", "")).encode()
    except UnicodeEncodeError as error:
        raise SlimvoxError("`--out` must be a name in UTF-8, which TensorBoard and others need") from error


def _quieten_libraries(errors: Console, *, verbose: bool) -> None:
    """Show slimvox's warnings on the terminal (if verbose, all messages), and only errors of the libraries."""
    handler = RichHandler(console=errors, show_time=False, show_path=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.getLogger("slimvox").setLevel(logging.INFO if verbose else logging.WARNING)
    if not verbose:
        os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # not a line for each repetition of a request
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
