"""JSON documents from outside, whose errors are messages of one sentence with the name of the document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from slimvox.util.errors import SlimvoxError, reason_of


def parse_json(text: str | bytes, source: str) -> Any:
    """The content of a JSON document.

    Args:
        text: the document; UTF-8 if it is bytes.
        source: name of the document in messages, such as its path.

    Raises:
        SlimvoxError: if it is not valid JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise SlimvoxError(f"{source} is not valid JSON: it is nested too deeply") from error
    except ValueError as error:
        raise SlimvoxError(f"{source} is not valid JSON: {reason_of(error)}") from error


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        SlimvoxError: if the file cannot be read, or does not contain a JSON object.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SlimvoxError(f"{path} cannot be read: {reason_of(error)}") from error
    data = parse_json(content, str(path))
    if not isinstance(data, dict):
        raise SlimvoxError(f"{path} must hold a JSON object, but holds {type(data).__name__} instead")
    return data
