"""Registries: named values that other packages can add to."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from slimvox.util.errors import SlimvoxError

T = TypeVar("T")


class Registry(Generic[T]):
    """Values by name, in the order of their registration."""

    def __init__(
        self,
        kind: str,
        *,
        key: str = "name",
        unique: tuple[str, ...] = (),
        check: Callable[[T], None] | None = None,
        option: str = "",
    ) -> None:
        """Create an empty registry.

        Args:
            kind: word for a value in messages, such as "loss".
            key: attribute that holds a value's name.
            unique: further attributes in which no two values may be equal.
            check: called with each value before it is added; raises `ValueError` for one that cannot be registered.
            option: option or field that takes a name, for the message of `find`; `key` or `kind` if not given.
        """
        self._kind, self._key, self._unique, self._check = kind, key, unique, check
        self._option = option or (kind if key == "name" else key)
        self._values: dict[str, T] = {}

    def register(self, value: T) -> T:
        """Add a value; raises `ValueError` if its name is taken, or if it conflicts with another value."""
        for attribute in (self._key, *self._unique):
            key = getattr(value, attribute)
            if any(getattr(other, attribute) == key for other in self._values.values()):
                raise ValueError(f"a {self._kind} with the {attribute} {key!r} is registered already")
        if self._check is not None:
            self._check(value)
        self._values[getattr(value, self._key)] = value
        return value

    def unregister(self, name: str) -> None:
        """Remove the value with a name (for tests and notebooks)."""
        del self._values[name]

    def get(self, name: str) -> T:
        """The value with a name; raises `KeyError` if there is none."""
        return self._values[name]

    def find(self, name: Any, source: object = None) -> T:
        """The value with a name that a user gave, which need not be a valid one.

        Args:
            name: the name.
            source: file in which it was found, for the message.

        Raises:
            SlimvoxError: if there is no such value; the message names all of them.
        """
        if not isinstance(name, str) or name not in self._values:
            where = "" if source is None else f"{source}: "
            known = ", ".join(self._values)
            raise SlimvoxError(
                f"{where}`{self._option}` must be one of {known}, but is {reprlib.repr(name)} instead"
            )
        return self._values[name]

    def all(self) -> tuple[T, ...]:
        """All values."""
        return tuple(self._values.values())

    def names(self) -> tuple[str, ...]:
        """Names of all values."""
        return tuple(self._values)
