"""Options and arguments that several commands have in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from slimvox.cli.command import Argument, Command
from slimvox.util.errors import SlimvoxError

MODEL = Argument(type=str, positional=True)
AUDIO = Argument(type=tuple[str, ...], positional=True)


@dataclass(frozen=True, kw_only=True)
class VerboseOption(Command):
    """`--verbose`."""

    verbose: Annotated[bool, tyro.conf.arg(aliases=["-v"])] = False
    """Also print what is loaded and downloaded."""


@dataclass(frozen=True, kw_only=True)
class ModelOptions(VerboseOption):
    """Options of a command that loads one MODEL."""

    if TYPE_CHECKING:
        model: str  # of each command, from its function

    revision: str | None = None
    """Branch, tag or commit of MODEL on the Hugging Face hub; the same as MODEL@REVISION."""

    def call(self, **given: Any) -> Any:
        """Call the function with the model at its revision."""
        return super().call(model=self.model_at_revision, **given)

    @property
    def model_at_revision(self) -> str:
        """The model with its revision, as `slimvox.load` takes it.

        Raises:
            SlimvoxError: if there is a revision, and the model is not on the hub.
        """
        if self.revision is None:
            return self.model
        if self.model == "embedded" or Path(self.model).exists():
            raise SlimvoxError(
                f"`--revision` is for models on the Hugging Face hub, which {self.model} is not"
            )
        return f"{self.model}@{self.revision}"
