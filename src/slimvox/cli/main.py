"""`slimvox COMMAND ...`: parses, runs, and turns errors into one sentence and an exit status."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.logging import RichHandler

from slimvox.cli.benchmark import BenchmarkCommand
from slimvox.cli.compare import CompareCommand
from slimvox.cli.demo import DemoCommand
from slimvox.cli.encode import EncodeCommand
from slimvox.cli.evaluate import EvaluateCommand
from slimvox.cli.export import ExportCommand
from slimvox.cli.figures import FiguresCommand
from slimvox.cli.inspect import InspectCommand
from slimvox.cli.prune import PruneCommand
from slimvox.cli.report import ReportCommand
from slimvox.errors import SlimvoxError

Command = (
    Annotated[PruneCommand, tyro.conf.subcommand("prune")]
    | Annotated[InspectCommand, tyro.conf.subcommand("inspect")]
    | Annotated[EncodeCommand, tyro.conf.subcommand("encode")]
    | Annotated[CompareCommand, tyro.conf.subcommand("compare")]
    | Annotated[EvaluateCommand, tyro.conf.subcommand("evaluate")]
    | Annotated[BenchmarkCommand, tyro.conf.subcommand("benchmark")]
    | Annotated[ExportCommand, tyro.conf.subcommand("export")]
    | Annotated[ReportCommand, tyro.conf.subcommand("report")]
    | Annotated[FiguresCommand, tyro.conf.subcommand("figures")]
    | Annotated[DemoCommand, tyro.conf.subcommand("demo")]
)

BAD_INPUT, INTERRUPTED = 2, 130
"""Exit statuses: something the user can mend; stopped by Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its status."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 1 for an unusable result, 2 for bad input, 130 when interrupted."""
    errors = Console(stderr=True, soft_wrap=True)
    command: Any = tyro.cli(
        Command,
        prog="slimvox",
        description="Smaller, faster speech encoders that still serve every downstream task.",
        args=arguments,
        config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff),
    )
    _quieten_libraries(errors)
    try:
        command.run(Console(highlight=False))
    except SlimvoxError as error:
        errors.print(f"[bold red]error:[/] {_escape(str(error))}", highlight=False)
        return error.exit_status
    except KeyboardInterrupt:
        errors.print("interrupted", highlight=False)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`slimvox inspect ... | head`) has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        errors.print(f"[bold red]error:[/] {_escape(str(error.strerror or error) + where)}", highlight=False)
        return BAD_INPUT
    return 0


def _quieten_libraries(errors: Console) -> None:
    """Our warnings to the terminal; those of the libraries only where something is wrong."""
    handler = RichHandler(console=errors, show_time=False, show_path=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _escape(text: str) -> str:
    """Rich reads [brackets] as markup."""
    return text.replace("[", "\\[")
