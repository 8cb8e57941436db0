"""The tier of property tests that draws other examples every time: `make test-nightly`."""

from __future__ import annotations

import os

NIGHTLY = os.environ.get("SLIMVOX_HYPOTHESIS") == "nightly"
FACTOR = 20
"""Factor by which nightly runs draw more examples."""


def examples(number: int) -> int:
    """The number of examples of a test whose cost asks for another number than hypothesis' 100."""
    return number * FACTOR if NIGHTLY else number
