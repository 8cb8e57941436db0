"""Which results can be compared: those of the same data and protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slimvox.util.errors import SlimvoxError

COMPARED = {
    "suite": "suites",
    "yardstick": "versions of mini-SUPERB",
    "data_fingerprint": "tables of examples",
    "audio_fingerprint": "sizes of audio files",
    "protocol": "protocols",
    "seeds": "numbers of seeds",
    "precision": "precisions",
}
"""Entries of the configuration that must be the same in results that are compared, and what they are."""
LATER_ENTRIES = ("audio_fingerprint",)
"""Entries that results of earlier versions do not have; they count only where they are known."""

Named = tuple[str, Mapping[str, Any]]
"""Name of a model and the configuration of its result."""


def check_same(task: str, first: Named, second: Named) -> None:
    """Check that two results of a task are of the same data and protocol.

    Raises:
        SlimvoxError: with what differs.
    """
    for key, title in COMPARED.items():
        if key in LATER_ENTRIES and not all(key in configuration for _, configuration in (first, second)):
            continue
        if first[1].get(key) != second[1].get(key):
            raise SlimvoxError(
                f"{task}: {first[0]} and {second[0]} have different {title}, so their scores are not comparable; run"
                " slimvox evaluate again with the same data and options"
            )
