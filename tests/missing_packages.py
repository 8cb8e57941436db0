"""Packages that are not found although they are installed, and tests for which a package is missing or too old."""

from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec

import pytest

from slimvox import SlimvoxError
from slimvox.exporters import export_format


def hide_packages(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Make `importlib.util.find_spec` say that packages are not installed."""
    find = importlib.util.find_spec

    def visible(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in names else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", visible)


def exports(format: str) -> pytest.MarkDecorator:
    """Skip tests that write files of a format if its packages are missing or too old."""
    chosen, reason = export_format(format), ""
    try:
        chosen.require(chosen.packages_to_write)
    except SlimvoxError as error:
        reason = str(error)
    return pytest.mark.skipif(bool(reason), reason=reason)
