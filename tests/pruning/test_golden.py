"""Short runs give the losses, sizes and distances that they gave before (`make golden` makes the values anew)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import transformers

from golden_runs import FILE, RUNS, differences, measure

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
PINNED = re.findall(r"^transformers==([0-9.]+)", CONSTRAINTS.read_text(), re.MULTILINE)


@pytest.mark.skipif(
    transformers.__version__ not in PINNED,
    reason=f"the values are of teachers as transformers {', '.join(PINNED)} initialises them",
)
@pytest.mark.parametrize("name", RUNS)
def test_a_short_run_gives_what_it_gave(name: str, tmp_path: Path) -> None:
    expected = json.loads(FILE.read_text())[name]
    found = list(differences(expected, measure(name, tmp_path)))
    assert not found, "\n".join(found[:20])


def test_a_version_is_pinned() -> None:
    assert PINNED


def test_the_kept_runs_are_those_that_are_made() -> None:
    assert json.loads(FILE.read_text()).keys() == RUNS.keys()
