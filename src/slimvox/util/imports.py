"""Optional packages, and public names of a package whose modules are imported at first use."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from slimvox.util.errors import SlimvoxError


def require(packages: Sequence[str], what: str, *, extra: str | None = None) -> None:
    """Check that packages are installed, without importing them.

    Args:
        packages: names of modules, perhaps with the lowest version: `torch>=2.12`. A module with a version has the
            name of its package.
        what: the feature that needs them, with which the message begins.
        extra: name of the extra of slimvox that installs them, if there is one.

    Raises:
        SlimvoxError: naming the packages that are missing, or the first one that is too old.
    """
    bounds = {name: lowest for name, _, lowest in (package.partition(">=") for package in packages)}
    missing = [name for name in bounds if importlib.util.find_spec(name) is None]
    if missing:
        command = " ".join(missing) if extra is None else f'"slimvox[{extra}]"'
        verb = "is" if len(missing) == 1 else "are"
        raise SlimvoxError(
            f"{what} needs {' and '.join(missing)}, which {verb} not installed: pip install {command}"
        )
    for name, lowest in bounds.items():
        if lowest and (found := _older_version(name, lowest)):
            package = f"{name}>={lowest}"
            raise SlimvoxError(f'{what} needs {package}, but {found} is installed: pip install "{package}"')


def _older_version(name: str, lowest: str) -> str | None:
    """Installed version of a package if it is too old, else None; None too if it has none (a folder on the path)."""
    # Imported here: every command imports this module, and few ask for a version.
    from importlib.metadata import PackageNotFoundError, version

    from packaging.version import Version

    try:
        found = version(name)
    except PackageNotFoundError:
        return None
    return found if Version(found).release < Version(lowest).release else None


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
