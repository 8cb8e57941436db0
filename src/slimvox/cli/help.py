"""Help texts of the commands, from the docstrings below their fields.

tyro keeps the line breaks of a docstring that is longer than a line, calls an optional text `{None}|STR`, and shows the
empty default of a list as `(default: )`. The decorator here gives it the text in one line, a plain metavar and no empty
default.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
import typing
from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, Literal, TypeVar

import tyro

Command = TypeVar("Command", bound=type)

_METAVARS = {"str": "TEXT", "int": "INT", "float": "FLOAT", "Path": "PATH"}


def readable_help(command: Command) -> Command:
    """Class decorator for commands: help texts without line breaks, plain metavars, and only meaningful defaults."""
    texts = _attribute_docstrings(command)
    hints = typing.get_type_hints(command, include_extras=True)
    for field in fields(command):
        hint = hints[field.name]
        options: dict[str, Any] = {"help": texts[field.name]}
        metavar = _metavar(field.name, hint)
        if metavar is not None:
            options["metavar"] = metavar
        if field.default in (None, False, ()) or _is_list(hint):
            options["help_behavior_hint"] = "(required)" if field.default is MISSING else ""
        command.__annotations__[field.name] = Annotated[hint, tyro.conf.arg(**options)]
    return command


def _attribute_docstrings(command: type) -> dict[str, str]:
    """Docstrings of the fields of a dataclass and of its bases, each in one line."""
    bases = [base for base in command.__bases__ if is_dataclass(base)]
    texts = {name: text for base in bases for name, text in _attribute_docstrings(base).items()}
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(command))).body
    assert isinstance(definition, ast.ClassDef)
    for statement, below in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            texts[statement.target.id] = " ".join(str(below.value.value).split())
    return texts


def _metavar(name: str, hint: Any) -> str | None:
    """Metavar of a field, or None to keep tyro's or the one that was given."""
    extras = typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ()
    if any(getattr(extra, "metavar", None) for extra in extras):
        return None
    kind = typing.get_args(hint)[0] if extras else hint
    is_list = _is_list(hint)
    if any(extra is _POSITIONAL for extra in extras):
        return f"{name.upper()}..." if is_list else name.upper()
    is_optional = type(None) in typing.get_args(kind)
    if not is_optional and not is_list:
        return None
    kind = next(each for each in typing.get_args(kind) if each is not type(None))
    if typing.get_origin(kind) is Annotated:
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) is Literal:
        return "{" + ",".join(typing.get_args(kind)) + "}"
    return _METAVARS[kind.__name__] + ("..." if is_list else "")


def _is_list(hint: Any) -> bool:
    kind = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
    return typing.get_origin(kind) is tuple and not isinstance(kind, types.UnionType)


def flags_of_lists(commands: Any) -> frozenset[str]:
    """Flags that take several values, of all commands of a union of them."""
    found = set()
    for each in typing.get_args(commands):
        command = typing.get_args(each)[0]
        for name, hint in typing.get_type_hints(command, include_extras=True).items():
            if _is_list(hint) and _POSITIONAL not in typing.get_args(hint):
                found.add(f"--{name.replace('_', '-')}")
    return frozenset(found)


def join_repeated_flags(arguments: Sequence[str], flags: frozenset[str]) -> list[str]:
    """Move the values of a flag that is given again behind those it has already, where tyro would forget the first
    ones: `--set A --set B` is `--set A B`.
    """
    current: list[str] = []
    parts = [current]
    lists: dict[str, list[str]] = {}
    for argument in arguments:
        if not argument.startswith("--"):
            current.append(argument)
            continue
        name, equals, value = argument.partition("=")
        name = name.replace("_", "-")
        if name in lists:
            current = lists[name]
            current.extend([value] if equals else [])
            continue
        current = [argument]
        parts.append(current)
        if name in flags:
            lists[name] = current
    return [argument for part in parts for argument in part]


_POSITIONAL = typing.get_args(tyro.conf.Positional[str])[1]
