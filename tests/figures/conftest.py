"""Four tiny runs, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiny_runs import make_run, make_speech, make_teacher


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds with the estimator, one without, one of another size."""
    folder = tmp_path_factory.mktemp("figures")
    teacher, speech = make_teacher(folder / "teacher"), make_speech(folder / "speech")
    plain = {"gates.straight_through": False}
    for name, seed, settings in (
        ("a", 0, {}),
        ("b", 1, {}),
        ("plain", 0, plain),
        ("large", 0, {"target.keep": 0.5}),
    ):
        make_run(folder / "runs" / name, teacher, speech, seed=seed, settings=settings)
    return folder / "runs"
