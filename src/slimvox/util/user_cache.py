"""Folder for files that save time and can be deleted at any time."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """`$SLIMVOX_CACHE`, else `slimvox` in `$XDG_CACHE_HOME`, else in `~/.cache`; need not exist."""
    if own := os.environ.get("SLIMVOX_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slimvox"
