"""Packages that are installed, but are not found."""

from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec

import pytest


def hide_packages(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Make `importlib.util.find_spec` say that packages are not installed."""
    find = importlib.util.find_spec

    def visible(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in names else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", visible)
