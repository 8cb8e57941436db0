"""Two tiny runs, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiny_runs import make_run, make_speech, make_teacher


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a learned run and a control."""
    folder = tmp_path_factory.mktemp("report")
    teacher, speech = make_teacher(folder / "teacher"), make_speech(folder / "speech")
    # With multipliers, as in the paper, and not by projection: these have more to be drawn.
    settings = {"gates.sparsity_control": "lagrangian"}
    make_run(folder / "runs" / "learned", teacher, speech, settings=settings)
    make_run(folder / "runs" / "random", teacher, speech, control="random")
    return folder / "runs"


@pytest.fixture
def learned(runs: Path) -> Path:
    """The learned run."""
    return runs / "learned"
