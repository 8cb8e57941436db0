"""Settings of the tests of exported files."""

from __future__ import annotations

from pathlib import Path

import pytest

from drawn import odd_encoder
from slimvox.checkpoint import write_slimvox_directory
from slimvox.exporters import calibration


@pytest.fixture(autouse=True)
def _short_clips_for_the_error_of_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoders here have a hop of 20 samples: 10 s would be 8,000 frames."""
    monkeypatch.setattr(calibration, "MOST_SECONDS", 0.5)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pruned encoder of odd widths; the tests of a module export it into its own directory."""
    path = tmp_path_factory.mktemp("odd") / "wavlm"
    write_slimvox_directory(odd_encoder(), path, kept_indices={}, model_card="")
    return path
