"""Public names of a package whose modules are imported at first use."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_attributes(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the function `__getattr__` of a package (PEP 562).

    Args:
        package: full name of the package.
        modules: full name of the module that defines each name.

    Returns:
        a function that imports the module of a name and returns the attribute; it raises AttributeError for other
        names.
    """

    def attribute(name: str) -> Any:
        if name in modules:
            return getattr(importlib.import_module(modules[name]), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return attribute
