"""Errors of writing as one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from slimvox import SlimvoxError
from slimvox.util.output_paths import writing


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("short write"), "short write"),
    ],
)
def test_an_error_of_writing_names_target_reason_and_advice(error: OSError, reason: str) -> None:
    with pytest.raises(SlimvoxError) as caught, writing(Path("out"), "; free some space"):
        raise error
    assert str(caught.value) == f"out cannot be written: {reason}; free some space"
    assert caught.value.__cause__ is error


def test_other_errors_of_writing_stay_what_they_are() -> None:
    with pytest.raises(ValueError, match="another"), writing(Path("out")):
        raise ValueError("another")
