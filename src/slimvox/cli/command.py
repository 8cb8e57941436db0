"""Class decorator for commands: one dataclass per command, with an option for each parameter of the function behind it.

An option takes its name, type, default and help text from the function's signature and docstring; a command declares
only what differs on the command line, and adds the options that concern printing. In the help text, the name of a
parameter in backticks becomes its flag, and the rest from "In Python" on is left out.
"""

from __future__ import annotations

import importlib
import re
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import tyro
from rich.console import Console
from rich.text import Text

from slimvox.cli.signatures import Parameter, attribute_docstrings, read_parameters

Class = TypeVar("Class", bound=type)

ONLY_IN_PYTHON = frozenset({"access", "console", "on_progress", "parts", "report"})
"""Parameters that are not options: how progress is shown, and objects."""
_METAVARS = {str: "TEXT", int: "INT", float: "FLOAT", Path: "PATH"}


@dataclass(frozen=True, kw_only=True)
class Argument:
    """A parameter of a function whose option differs from the parameter."""

    name: str | None = None
    """Name of the option, if not the parameter's."""
    type: Any = None
    """Type of the value on the command line, if it does not follow from the parameter's."""
    metavar: str | None = None
    positional: bool = False
    parse: Callable[[Any], Any] | None = None
    """Converts the value on the command line to the function's."""
    show: Callable[[Any], Any] | None = None
    """Converts the function's default to that of the command line."""
    text: str | None = None
    """Help text, if not the parameter's; required for a flag that turns off a default, such as `--no-dense`."""


MODEL = Argument(type=str, positional=True)
AUDIO = Argument(type=tuple[str, ...], positional=True)
RUNS = Argument(type=tuple[Path, ...], positional=True, metavar="RUN_OR_DIR...")
SCORES = Argument(metavar="DIR...")
FILES = Argument(metavar="FILE...")


class Command:
    """Base class of the commands of functions."""

    path: ClassVar[str]
    """Full name of the function, such as `slimvox.pruning.pruner.prune`."""
    arguments: ClassVar[dict[str, Argument]]
    """Differences by parameter; empty for parameters that are options unchanged."""

    def with_flags(self, message: str) -> str:
        """An error message of the function, with flags in place of the parameters that it names in backticks."""
        flags = {name: _flag(name, each) for name, each in self.arguments.items() if not each.positional}
        return re.sub(
            r"`(\w+)((?:\[\d+\])?)`", lambda found: f"`{flags.get(found[1], found[1])}{found[2]}`", message
        )

    def call(self, **given: Any) -> Any:
        """Call the function with the options of the command line, and with other arguments."""
        for name, argument in self.arguments.items():
            value = getattr(self, argument.name or name)
            given.setdefault(name, argument.parse(value) if argument.parse else value)
        module, _, function = self.path.rpartition(".")
        return getattr(importlib.import_module(module), function)(**given)


@dataclass(frozen=True, kw_only=True)
class VerboseOption(Command):
    """`--verbose`."""

    verbose: Annotated[bool, tyro.conf.arg(aliases=["-v"])] = False
    """Also print what is loaded and downloaded."""


def command(path: str, **arguments: Argument) -> Callable[[Class], Class]:
    """Turn a class into a command.

    Args:
        path: full name of the function whose parameters become options.
        arguments: parameters whose options differ from them.
    """

    def decorate(cls: Any) -> Any:
        own, texts = dict(cls.__annotations__), attribute_docstrings(cls)
        cls.__annotations__ = {}
        parameters = [each for each in read_parameters(path) if each.name not in ONLY_IN_PYTHON]
        unknown = set(arguments) - {each.name for each in parameters}
        assert not unknown, f"{path} has no parameters {unknown}"
        cls.path = path
        cls.arguments = {each.name: arguments.get(each.name, Argument()) for each in parameters}
        cls.imports = (path.rpartition(".")[0], *getattr(cls, "imports", ()))
        flags = {each.name: _flag(each.name, cls.arguments[each.name]) for each in parameters}
        for each in parameters:
            _add_option(cls, each, cls.arguments[each.name])
            argument = cls.arguments[each.name]
            assert each.default is not True or argument.text, (
                f"the flag --no-{each.name} needs its own help text"
            )
            texts[argument.name or each.name] = argument.text or _help_text(each.text, flags)
        cls.__annotations__.update(own)
        made: Any = dataclass(frozen=True, kw_only=True)(cls)
        hints = typing.get_type_hints(made, include_extras=True)
        for field in fields(made):
            hint = hints[field.name]
            settings: dict[str, Any] = {"help": texts[field.name], "metavar": _metavar(field.name, hint)}
            if any(field.default is each for each in (None, False, True)) or _is_list(hint):
                settings["help_behavior_hint"] = "(required)" if field.default is MISSING else ""
            made.__annotations__[field.name] = Annotated[hint, tyro.conf.arg(**settings)]
        return made

    return decorate


def _add_option(cls: Any, parameter: Parameter, argument: Argument) -> None:
    name = argument.name or parameter.name
    hint: Any = argument.type or _type_on_command_line(parameter.hint)
    if argument.positional:
        hint = Annotated[hint, _POSITIONAL]
    cls.__annotations__[name] = Annotated[hint, argument] if argument.metavar else hint
    if parameter.default is not MISSING:
        default = argument.show(parameter.default) if argument.show else parameter.default
        setattr(cls, name, () if default is None and _is_list(hint) else default)


def _type_on_command_line(hint: Any) -> Any:
    """The type of a parameter on the command line: of a union, its path, text or list."""
    if typing.get_origin(hint) is Annotated:
        return hint
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    kinds = [each for each in options if each is not type(None)]
    lists = [each for each in kinds if typing.get_origin(each) is Sequence]
    if Path in kinds or str in kinds:
        kind: Any = Path if Path in kinds else str
    elif lists:
        return tuple[_type_on_command_line(typing.get_args(lists[0])[0]), ...]  # type: ignore[misc]
    else:
        (kind,) = kinds
    return kind | None if type(None) in options else kind


def _flag(name: str, argument: Argument) -> str:
    return name.upper() if argument.positional else f"--{(argument.name or name).replace('_', '-')}"


def _help_text(text: str, flags: dict[str, str]) -> str:
    text = re.sub(r"`(\w+)`", lambda found: flags.get(found[1], found[0]), text.partition(" In Python")[0])
    return text[:1].upper() + text[1:]


def _metavar(name: str, hint: Any) -> str | None:
    """Metavar of an option, or None to keep tyro's."""
    extras = getattr(hint, "__metadata__", ())
    given = next((each.metavar for each in extras if getattr(each, "metavar", None)), None)
    if given is not None:
        return str(given)
    kind = typing.get_args(hint)[0] if extras else hint
    dots = "..." if _is_list(hint) else ""
    if _POSITIONAL in extras:
        return name.upper() + dots
    if not _is_union(kind) and not dots:
        return None
    kind = next(each for each in typing.get_args(kind) if each is not type(None))
    if typing.get_origin(kind) is Annotated:
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) is Literal:
        return "{" + ",".join(typing.get_args(kind)) + "}"
    return _METAVARS[kind] + dots


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _is_list(hint: Any) -> bool:
    kind = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
    return typing.get_origin(kind) is tuple


@contextmanager
def showing(text: str) -> Iterator[Callable[[str], None]]:
    """Context in which a line on standard error says what is being done; gives a function that changes it.

    The text is no markup, because it contains names chosen by the user.
    """
    with Console(stderr=True).status(Text(text)) as status:
        yield lambda line: status.update(Text(line))


def flags_of_lists(commands: Any) -> frozenset[str]:
    """Flags that take several values, for all commands of a union."""
    return frozenset(_flags_of_lists(commands))


def _flags_of_lists(commands: Any) -> Iterator[str]:
    for each in typing.get_args(commands):
        for name, hint in typing.get_type_hints(typing.get_args(each)[0], include_extras=True).items():
            if _is_list(hint) and _POSITIONAL not in typing.get_args(hint):
                yield f"--{name.replace('_', '-')}"


def join_repeated_flags(arguments: Sequence[str], flags: frozenset[str]) -> list[str]:
    """Join the values of a flag that is given repeatedly: `--set A --set B` becomes `--set A B`.

    tyro would keep only the last value.
    """
    current: list[str] = []
    parts = [current]
    lists: dict[str, list[str]] = {}
    for argument in arguments:
        if not argument.startswith("-") or _is_number(argument):
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


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_POSITIONAL = typing.get_args(tyro.conf.Positional[str])[1]
