"""Optional dependencies: a missing one ends in a sentence that says what to install."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from slimvox.util.errors import SlimvoxError


def require(packages: Sequence[str], what: str, *, extra: str | None = None) -> None:
    """Check that packages are installed, without importing them.

    Args:
        packages: names of modules.
        what: what needs them, to begin the message with.
        extra: the optional dependencies of slimvox that bring them along, if there are such.

    Raises:
        SlimvoxError: naming the packages that are missing.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        command = " ".join(missing) if extra is None else f'"slimvox[{extra}]"'
        verb = "is" if len(missing) == 1 else "are"
        raise SlimvoxError(
            f"{what} needs {' and '.join(missing)}, which {verb} not installed: pip install {command}"
        )
