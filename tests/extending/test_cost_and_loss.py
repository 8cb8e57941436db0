"""A cost, a loss and scores of a task defined outside the package go through a run, its files and its report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import slimvox
from extending.example_parts import LogEnergy
from extending.gender_task import GENDER
from extending.memory_traffic import WEIGHT_BYTES, WeightBytes
from score_files import write_scores
from slimvox.cli.main import run
from slimvox.costs import register_cost, unregister_cost
from slimvox.evaluation.tasks import register_task, unregister_task
from slimvox.losses import register_loss, unregister_loss
from tiny_runs import make_run, make_speech, make_teacher


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register_cost(WEIGHT_BYTES)
    register_loss(LogEnergy())
    register_task(GENDER)
    yield
    unregister_task("gender")
    unregister_cost("weight-bytes")
    unregister_loss("log_energy")


def test_a_run_with_both(tmp_path: Path) -> None:
    teacher, speech = make_teacher(tmp_path / "teacher"), make_speech(tmp_path / "speech")
    out = tmp_path / "out"
    settings = {
        "target.kind": "weight-bytes",
        "target.keep": 0.5,
        "distillation.weights.log_energy": 0.25,
        "distillation.weights.l1": 2.0,
    }
    make_run(out, teacher, speech, settings=settings)
    encoder = slimvox.load(out)
    bytes_of_weights = WeightBytes()
    share = bytes_of_weights.of(encoder.anatomy) / bytes_of_weights.of(encoder.dense_anatomy)
    assert 0.995 * 0.5 <= share <= 0.5
    log = [json.loads(line) for line in (out / "run" / "log.jsonl").read_text().splitlines()]
    for record in log:
        terms = 2.0 * record["l1"] + record["cosine"] + 0.25 * record["log_energy"]
        assert record["distillation"] == pytest.approx(terms, rel=1e-5)
        assert record["log_energy"] > 0
    write_scores(out / "scores", str(out), {"gender": 91.5}, parameters=encoder.parameter_count)
    assert run(["report", str(out), "--out", str(tmp_path / "report.html")]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "Difference of log energies" in page
    assert "GENDER" in page and "91.5 %" in page


def test_names_that_nobody_registered(tmp_path: Path) -> None:
    with pytest.raises(slimvox.SlimvoxError, match=r"`target.kind` must be one of"):
        slimvox.prune("embedded", tmp_path, tmp_path / "out", overrides={"target.kind": "carats"})
    with pytest.raises(slimvox.SlimvoxError, match=r"there is no field `distillation.weights.x`"):
        slimvox.prune("embedded", tmp_path, tmp_path / "out", overrides={"distillation.weights.x": 1.0})
