"""Options and arguments that several commands have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from slimvox.cli.command import Argument, Command

MODEL = Argument(type=str, positional=True)
AUDIO = Argument(type=tuple[str, ...], positional=True)


@dataclass(frozen=True, kw_only=True)
class HubOptions(Command):
    """Options of a command that loads models."""

    token: str | None = None
    """Access token for the Hugging Face hub; by default the one in HF_TOKEN, or the one that `hf auth login` stored."""
    verbose: Annotated[bool, tyro.conf.arg(aliases=["-v"])] = False
    """Also print what is loaded and downloaded."""


@dataclass(frozen=True, kw_only=True)
class ModelOptions(HubOptions):
    """Options of a command that loads one MODEL."""

    if TYPE_CHECKING:
        model: str  # of each command, from its function

    revision: str | None = None
    """Branch, tag or commit of MODEL on the Hugging Face hub; the same as MODEL@REVISION."""
