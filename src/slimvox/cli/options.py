"""Options and arguments that several commands have in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from slimvox.cli.command import Argument, Command

MODEL = Argument(type=str, positional=True)
AUDIO = Argument(type=tuple[str, ...], positional=True)
RUNS = Argument(type=tuple[Path, ...], positional=True, metavar="RUN_OR_DIR...")
SCORES = Argument(metavar="DIR...")
FILES = Argument(metavar="FILE...")


@dataclass(frozen=True, kw_only=True)
class VerboseOption(Command):
    """`--verbose`."""

    verbose: Annotated[bool, tyro.conf.arg(aliases=["-v"])] = False
    """Also print what is loaded and downloaded."""
