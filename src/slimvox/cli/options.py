"""Options that several commands have in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from slimvox.util.errors import SlimvoxError


@dataclass(frozen=True, kw_only=True)
class VerboseOption:
    """`--verbose`."""

    verbose: Annotated[bool, tyro.conf.arg(aliases=["-v"])] = False
    """Also print what is loaded and downloaded."""


@dataclass(frozen=True, kw_only=True)
class ModelOptions(VerboseOption):
    """Options of a command that loads one MODEL."""

    revision: str | None = None
    """Branch, tag or commit of MODEL on the Hugging Face hub; the same as MODEL@REVISION."""

    def at_revision(self, model: str) -> str:
        """The model with its revision, as `slimvox.load` takes it.

        Raises:
            SlimvoxError: if there is a revision, and the model is not on the hub.
        """
        if self.revision is None:
            return model
        if model == "embedded" or Path(model).exists():
            raise SlimvoxError(f"`--revision` is for models on the Hugging Face hub, which {model} is not")
        return f"{model}@{self.revision}"
