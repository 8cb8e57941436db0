"""Optional dependencies, with an error that says what to install if one is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from slimvox.util.errors import SlimvoxError


def require(packages: Sequence[str], what: str, *, extra: str | None = None) -> None:
    """Check that packages are installed, without importing them.

    Args:
        packages: names of modules.
        what: the feature that needs them, with which the message begins.
        extra: name of the extra of slimvox that installs them, if there is one.

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
