"""Settings of the tests of exported files."""

from __future__ import annotations

import pytest

from slimvox.exporters import int8


@pytest.fixture(autouse=True)
def _short_clips_for_the_error_of_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoders here have a hop of 20 samples: 10 s would be 8,000 frames."""
    monkeypatch.setattr(int8, "ERROR_SECONDS", 0.5)
