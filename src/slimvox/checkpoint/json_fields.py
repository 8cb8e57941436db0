"""JSON files of models: every value that decides what an encoder computes is checked before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from slimvox.util.errors import SlimvoxError
from slimvox.util.json_files import read_json_object
from slimvox.util.validation import Range, convert

Size = Annotated[int, Range(at_least=1, at_most=2**31 - 1)]
Sizes = tuple[Size, ...]


def read_json(path: Path) -> dict[str, Any]:
    """Read the JSON object in a file of a model directory.

    Raises:
        SlimvoxError: if there is no such file, or it holds something else.
    """
    if not path.exists():
        raise SlimvoxError(f"{path.parent}: there is no {path.name}; this is not a model directory")
    return read_json_object(path)


@dataclass(frozen=True)
class Fields:
    """The fields of a JSON object, which are returned in a requested type and range."""

    values: Mapping[str, Any]
    """The object."""
    source: Path | str
    """The file or model that it comes from, for messages."""

    def get(self, name: str, hint: Any) -> Any:
        """The value of a field.

        Args:
            name: of the field.
            hint: its type and range, as `slimvox.util.validation.convert` takes them.

        Raises:
            SlimvoxError: if the field is missing, of another type or out of range.
        """
        if name not in self.values:
            raise SlimvoxError(f"{self.source}: the field `{name}` is missing")
        try:
            return convert(hint, self.values[name], name)
        except SlimvoxError as error:
            raise SlimvoxError(f"{self.source}: {error}") from error
