"""Short runs give the losses, sizes and distances that they gave before (`make golden` makes the values anew)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from golden_runs import FILE, RUNS, differences, measure


@pytest.mark.parametrize("name", RUNS)
def test_a_short_run_gives_what_it_gave(name: str, tmp_path: Path) -> None:
    expected = json.loads(FILE.read_text())[name]
    found = list(differences(expected, measure(name, tmp_path)))
    assert not found, "\n".join(found[:20])


def test_the_kept_runs_are_those_that_are_made() -> None:
    assert json.loads(FILE.read_text()).keys() == RUNS.keys()
