"""Checks of values from outside: flags, arguments, fields of recipes and protocols, JSON files.

A type annotation states the valid values: `int`, `float` (finite), `bool`, `str`, a `Literal`, a dataclass, a list,
tuple or mapping of these, `None` if the annotation allows it, and a `Range` if `Annotated` adds one. `convert` checks a
single value, `build` a dataclass from plain data, `check_fields` a dataclass that was built directly, and
`checked_arguments` the arguments of a function. All report in the same words.

pydantic would not make this module shorter. Its strict mode refuses numpy's integers and lists for tuples, its lax mode
takes `True` and `"3"` for numbers, its messages would have to be mapped to these one by one, and it takes 0.27 s to
import.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import numbers
import os
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, ParamSpec, TypeVar

from slimvox.util.errors import SlimvoxError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Range:
    """Limits of a number, for `Annotated`."""

    at_least: float = -math.inf
    above: float = -math.inf
    at_most: float = math.inf
    below: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.at_least <= value <= self.at_most and self.above < value < self.below

    def expected(self, value: float) -> str:
        """Text that says what `value`, which is out of range, should be."""
        if self.above > -math.inf and self.below < math.inf:
            return f"above {self.above:g} and below {self.below:g}"
        lower = f"at least {self.at_least:g}" if self.at_least > -math.inf else f"above {self.above:g}"
        if self.at_least > -math.inf and self.at_most < 1e6:
            return f"between {self.at_least:g} and {self.at_most:g}"
        if value < self.at_least or value <= self.above:
            return lower
        return f"at most {self.at_most:.15g}" if self.at_most < math.inf else f"below {self.below:.15g}"


LARGEST_COUNT = 10**12
"""Maximum count; larger ones are typing errors, and would overflow in libraries."""
LONGEST_SECONDS = 1e9

Count = Annotated[int, Range(at_least=1, at_most=LARGEST_COUNT)]
CountOrZero = Annotated[int, Range(at_least=0, at_most=LARGEST_COUNT)]
Threads = Annotated[int, Range(at_least=1, at_most=4096)]
Seed = Annotated[int, Range(at_least=0, below=2**32)]
"""Seeds that torch, numpy and Python's `random` all accept."""
Seconds = Annotated[float, Range(above=0, at_most=LONGEST_SECONDS)]
SecondsOrZero = Annotated[float, Range(at_least=0, at_most=LONGEST_SECONDS)]
Positive = Annotated[float, Range(above=0)]
PositiveOrZero = Annotated[float, Range(at_least=0)]
Share = Annotated[float, Range(at_least=0, at_most=1)]
ProperShare = Annotated[float, Range(above=0, below=1)]


def convert(hint: Any, value: Any, name: str, *, ignore_unknown: bool = False) -> Any:
    """Convert a value to the type of an annotation, and check its range.

    Args:
        hint: the annotation.
        value: plain data from TOML, JSON or a caller. Integers are accepted for `float`, sequences for tuples.
        name: name of the value in messages.
        ignore_unknown: see `build`.

    Raises:
        SlimvoxError: if the value does not fit: "`name` must be ..., but is ... instead".
    """
    hint, limits = _without_range(hint)
    if hint is Any:
        return value
    options = _options(hint)
    if value is None and type(None) in options:
        return None
    options = tuple(each for each in options if each is not type(None))
    if len(options) > 1:
        return _first_that_fits(options, value, name)
    if options[0] is not hint:
        return convert(options[0], value, name, ignore_unknown=ignore_unknown)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, name, ignore_unknown=ignore_unknown)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and isinstance(value, (list, tuple)):
        kinds = _item_kinds(arguments, len(value), name)
        return tuple(
            convert(kind, item, f"{name}[{place}]", ignore_unknown=ignore_unknown)
            for place, (kind, item) in enumerate(zip(kinds, value, strict=True))
        )
    if origin in (list, Sequence) and isinstance(value, (list, tuple)):
        return [
            convert(arguments[0], item, f"{name}[{place}]", ignore_unknown=ignore_unknown)
            for place, item in enumerate(value)
        ]
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return {
            convert(arguments[0], key, f"{name}: key"): convert(
                arguments[1], item, f"{name}.{key}", ignore_unknown=ignore_unknown
            )
            for key, item in value.items()
        }
    if hint in (int, float) and _is_number(value, whole=hint is int):
        if limits is not None and value not in limits:
            raise SlimvoxError(_message(name, limits.expected(value), value))
        return hint(value)
    if origin is Literal and any(value == choice and type(value) is type(choice) for choice in arguments):
        return value
    if hint in (bool, str) and isinstance(value, hint):
        return value
    if (
        origin is None
        and inspect.isclass(hint)
        and hint not in (bool, str, int, float)
        and isinstance(value, hint)
    ):
        return value
    raise SlimvoxError(_message(name, _expected(hint), value))


def build(cls: Any, data: Any, name: str = "", *, ignore_unknown: bool = False) -> Any:
    """Create an instance of a dataclass from plain data, and check every field.

    Args:
        cls: the dataclass.
        data: a mapping from fields to values; nested dataclasses are mappings too.
        name: name of the data in messages; its fields are `name.field`.
        ignore_unknown: leave out keys that are not fields, as files of later versions may have them.

    Raises:
        SlimvoxError: for data that is not a mapping, fields that are unknown or missing, and values that do not fit.
    """
    prefix = f"{name}." if name else ""
    if not isinstance(data, Mapping):
        raise SlimvoxError(_message(name, "a table", data))
    hints = _hints(cls)
    known = {item.name: item for item in dataclasses.fields(cls) if item.init}
    unknown = [each for each in data if each not in known]
    if unknown and not ignore_unknown:
        raise SlimvoxError(f"there is no field `{prefix}{unknown[0]}`; known fields: {', '.join(known)}")
    missing = [
        f"`{prefix}{item.name}`"
        for item in known.values()
        if item.default is dataclasses.MISSING
        and item.default_factory is dataclasses.MISSING
        and item.name not in data
    ]
    if missing:
        raise SlimvoxError(
            f"{', '.join(missing)} must be given, but {'is' if len(missing) == 1 else 'are'} missing"
        )
    values, problems = {}, []
    for each, value in data.items():
        if each in known:
            try:
                values[each] = convert(hints[each], value, f"{prefix}{each}", ignore_unknown=ignore_unknown)
            except SlimvoxError as error:
                problems.append(str(error))
    if problems:
        raise SlimvoxError("; ".join(problems))
    return cls(**values)


def check_fields(instance: Any, name: str = "") -> None:
    """Check the fields of a dataclass that was built directly.

    Raises:
        SlimvoxError: if values do not fit their annotations; it names all of them.
    """
    problems = list(_problems(instance, f"{name}." if name else ""))
    if problems:
        raise SlimvoxError("; ".join(problems))


def checked_arguments(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Decorate a function so that its numbers and choices are checked by their annotations at each call.

    A single text or path for a list of texts becomes a list of one; a text would be iterated by character. Arguments of
    other types are passed through as they are.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        hints = typing.get_type_hints(function, include_extras=True)
        bound = signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            if _is_checkable(hints[name]):
                convert(hints[name], value, name)
            elif isinstance(value, str | os.PathLike) and _is_list_of_texts(hints[name]):
                bound.arguments[name] = (value,)
        return function(*bound.args, **bound.kwargs)

    return checked


def parse_value(hint: Any, text: str, name: str) -> Any:
    """Parse text as a value of an annotation: numbers, `true` and `false`, `none`, lists with commas.

    Raises:
        SlimvoxError: if the text does not match the annotation.
    """
    return convert(hint, _plain(hint, text.strip()), name)


def _problems(instance: Any, prefix: str) -> Iterator[str]:
    for name, hint in _hints(type(instance)).items():  # type: ignore[arg-type]
        if typing.get_origin(hint) is typing.ClassVar:
            continue
        value = getattr(instance, name)
        if dataclasses.is_dataclass(value):
            yield from _problems(value, f"{prefix}{name}.")
            continue
        try:
            convert(hint, value, f"{prefix}{name}")
        except SlimvoxError as error:
            yield str(error)


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def _without_range(hint: Any) -> tuple[Any, Range | None]:
    """An annotation without `Annotated`, and its range."""
    if typing.get_origin(hint) is not Annotated:
        return hint, None
    hint, *extras = typing.get_args(hint)
    return hint, next((each for each in extras if isinstance(each, Range)), None)


def _options(hint: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _first_that_fits(options: tuple[Any, ...], value: Any, name: str) -> Any:
    problems = []
    for option in options:
        try:
            return convert(option, value, name)
        except SlimvoxError as error:
            is_list = typing.get_origin(_without_range(option)[0]) in (list, tuple, Sequence)
            if is_list == isinstance(value, (list, tuple)):
                problems.append(error)
    if len(problems) == 1:  # only one of them is of the kind of the value
        raise problems[0]
    raise SlimvoxError(
        _message(name, " or ".join(_expected(_without_range(each)[0]) for each in options), value)
    )


def _item_kinds(arguments: tuple[Any, ...], count: int, name: str) -> tuple[Any, ...]:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return (arguments[0],) * count
    if len(arguments) != count:
        raise SlimvoxError(f"`{name}` must be {len(arguments)} values, but has {count}")
    return arguments


def _is_checkable(hint: Any) -> bool:
    """True if an annotation consists of numbers, choices, sequences of these and `None` only."""
    hint, _ = _without_range(hint)
    if typing.get_origin(hint) is Sequence:
        return _is_checkable(typing.get_args(hint)[0])
    if len(_options(hint)) > 1:
        return all(_is_checkable(each) for each in _options(hint))
    return hint in (int, float, bool, type(None)) or typing.get_origin(hint) is Literal


def _is_list_of_texts(hint: Any) -> bool:
    """True if an annotation allows a sequence of texts or paths, and no single one."""
    options = [_without_range(each)[0] for each in _options(_without_range(hint)[0])]
    items = [typing.get_args(each)[0] for each in options if typing.get_origin(each) is Sequence]
    return str not in options and any(str in _options(each) for each in items)


def _plain(hint: Any, text: str) -> Any:
    """Text as plain data, in the type that an annotation suggests."""
    hint, _ = _without_range(hint)
    options = _options(hint)
    if type(None) in options and text == "none":
        return None
    (hint, *_) = [_without_range(each)[0] for each in options if each is not type(None)]
    if typing.get_origin(hint) is tuple:
        return [_plain(typing.get_args(hint)[0], part.strip()) for part in text.split(",")]
    if hint is bool:
        return {"true": True, "false": False}.get(text, text)
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError:
            return text
    return text


def _is_number(value: Any, *, whole: bool) -> bool:
    """True if a value is a finite number; numpy's numbers count, `True` does not."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral if whole else numbers.Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond the range of float
        return False


def _message(name: str, expected: str, value: Any) -> str:
    return f"`{name}` must be {expected}, but is {shown(value)} instead"


def shown(value: Any) -> str:
    """A value as text for a message, cut if it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # more digits or deeper than Python prints
        text = f"a {type(value).__name__} too large to print"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _expected(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, typing.get_args(hint)))}"
    names = {float: "a finite number", int: "a whole number", bool: "true or false", str: "a text"}
    if hint in names:
        return names[hint]
    origin = typing.get_origin(hint) or hint
    return (
        "a table"
        if origin in (dict, Mapping)
        else "a list"
        if origin in (list, tuple, Sequence)
        else str(hint)
    )
