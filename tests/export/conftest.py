"""Settings of the tests of exported files."""

from __future__ import annotations

from pathlib import Path

import pytest

from drawn import odd_encoder
from slimvox.checkpoint import write_slimvox_directory


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pruned encoder of odd widths; the tests of a module export it into its own directory."""
    path = tmp_path_factory.mktemp("odd") / "wavlm"
    write_slimvox_directory(odd_encoder(), path, kept_indices={}, model_card="")
    return path
