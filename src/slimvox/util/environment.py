"""Environment variables that slimvox reads, or sets for libraries and child processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def environment_variable(name: str, value: str) -> Iterator[None]:
    """Context in which an environment variable has a value, also in child processes that are started there."""
    earlier = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if earlier is None:
            del os.environ[name]
        else:
            os.environ[name] = earlier


@contextmanager
def hub_token(token: str | None) -> Iterator[None]:
    """Within this context, requests to the Hugging Face hub use a token, also those of child processes.

    Args:
        token: access token; None for the one in the environment, or the one that `hf auth login` stored.
    """
    if token is None:
        yield
        return
    with environment_variable("HF_TOKEN", token):
        yield


def user_cache() -> Path:
    """Folder for files that save time and can be deleted at any time; need not exist.

    `$SLIMVOX_CACHE`, else `slimvox` in `$XDG_CACHE_HOME`, else in `~/.cache`.
    """
    if own := os.environ.get("SLIMVOX_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slimvox"
