"""The readers of official corpora at thousands of files: twice the files, twice the operations."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from corpora import CORPORA

from slimvox.evaluation.data_fingerprint import describe_data
from slimvox.evaluation.tasks import task

pytestmark = pytest.mark.slow
FILES = 2000
OPERATIONS_PER_FILE = 12
"""System calls that a file may take: those of listing, of its transcript's share, of a check that it is there."""


def operations(work: Callable[[], Any]) -> tuple[Counter[str], Any]:
    """Calls of Python functions and of functions in C that some work makes, those of the file system by name."""
    found: Counter[str] = Counter()
    system = {os.stat, os.lstat, os.open, os.scandir, os.listdir, open}

    def count(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            found["calls"] += 1
        elif event == "c_call":
            found["calls"] += 1
            if argument in system:
                found["system"] += 1

    sys.setprofile(count)
    try:
        result = work()
    finally:
        sys.setprofile(None)
    return found, result


@pytest.mark.parametrize(("name", "reader"), [(n, t) for n, c in CORPORA.items() for t in c.tasks])
def test_a_reader_takes_twice_as_many_operations_for_twice_as_many_files(
    name: str, reader: str, tmp_path: Path
) -> None:
    counted = {}
    for number in (1, 2):
        data = tmp_path / str(number)
        data.mkdir()
        CORPORA[name].make(data, number * FILES / CORPORA[name].files)
        files = sum(path.suffix in (".wav", ".flac") for path in data.rglob("*"))
        assert files == pytest.approx(number * FILES, rel=0.1)
        found, folds = operations(lambda: task(reader).read_official(data))  # noqa: B023
        assert found["calls"] and found["system"] <= OPERATIONS_PER_FILE * files
        described, _ = operations(lambda: describe_data(folds, data))  # noqa: B023
        counted[number] = (found["calls"], described["calls"])
    for once, twice in zip(counted[1], counted[2], strict=True):
        assert twice < 2.3 * once
