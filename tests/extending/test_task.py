"""An evaluation task defined outside the package goes through evaluate, its files, the scores and the report."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from score_tables import read_model, score_table

import models
import slimvox
from evaluation_tables import write_table
from extending.gender_task import GENDER
from extending.numpy_weights import NumpyWeights
from slimvox.cli.main import run
from slimvox.evaluation.points import METRICS, METRICS_OF, superb_s
from slimvox.evaluation.result_table import overall
from slimvox.evaluation.results import read_result
from slimvox.evaluation.suite import EvaluationPlan, default_tasks, evaluate
from slimvox.evaluation.tasks import SUPERB, register_task, unregister_task
from slimvox.exporters import register_format, unregister_format
from slimvox.report.charts.scores import score_panels
from slimvox.report.score_files import read_scores

PITCHES = {"female": 210.0, "male": 120.0}


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register_task(GENDER)
    yield
    unregister_task("gender")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Buzzing "voices" of two pitches."""
    draw = np.random.default_rng(0)
    time = np.arange(6400) / 16_000
    rows = []
    (tmp_path / "data").mkdir()
    for number in range(24):
        label = ("female", "male")[number % 2]
        pitch = PITCHES[label] * draw.uniform(0.95, 1.05)
        voice = sum(np.sin(2 * np.pi * pitch * harmonic * time) / harmonic for harmonic in range(1, 12))
        soundfile.write(tmp_path / "data" / f"{number}.wav", 0.1 * voice, 16_000)
        split = ("train", "train", "train", "train", "dev", "dev", "test", "test")[number % 8]
        rows.append({"path": f"{number}.wav", "split": split, "label": label})
    return write_table(tmp_path / "voices.tsv", rows)


def arguments(tmp_path: Path, table: Path, model: str = "fbank") -> list[str]:
    return [
        *("evaluate", model, "--data", str(tmp_path / "data"), "--manifest", f"gender={table}"),
        *("--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out")),
        *("--set", "gender.steps=20", "gender.whiten=false", "gender.learning_rates=0.01"),
    ]


def test_evaluate_its_file_and_the_report(
    tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments(tmp_path, table)) == 0
    printed = capsys.readouterr().out
    assert "GENDER" in printed and "accuracy" in printed, printed
    result = read_result(tmp_path / "out" / "gender.json")
    assert result is not None and result.scores["gender"]["mean"] == 100
    assert result.configuration["protocol"]["balanced"] is True
    (scores,) = read_scores([tmp_path / "out"], [])
    assert [panel.title for panel in score_panels([scores], {})] == ["GENDER: accuracy ↑"]
    assert "| GENDER | accuracy ↑ | 100.0 ± 0.0 |" in score_table(
        [read_model("fbank", tmp_path / "out")], None
    )
    # Started again, the result is that of the file.
    assert run([*arguments(tmp_path, table), "--json"]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed[printed.index("{") :])["results"][0]["reused"] is True


def test_an_eleventh_task_does_not_change_the_published_score(tmp_path: Path, table: Path) -> None:
    assert "gender" not in METRICS_OF and len(METRICS) == 11
    plan = EvaluationPlan(
        model="fbank",
        data=tmp_path / "data",
        manifests={"gender": (table,)},
        overrides=("gender.steps=2", "gender.learning_rates=0.01"),
        cache=tmp_path / "cache",
    )
    (result,) = evaluate(plan)
    ten = {name: 50.0 for name in METRICS}
    of_ten = dataclasses.replace(
        result,
        configuration={"suite": "official"},
        scores={name: {"mean": value} for name, value in ten.items()},
    )
    eleventh = dataclasses.replace(result, configuration={"suite": "official"})
    assert overall([of_ten, eleventh], own_data=False) == overall([of_ten], own_data=False)
    assert overall([of_ten], own_data=False)["superb_s"] == superb_s(ten)


def test_without_data_in_a_suite_it_does_not_run_by_default(tmp_path: Path) -> None:
    assert "gender" not in default_tasks("mini") and "gender" not in default_tasks("official")
    for suite, message in (("mini", "mini-SUPERB has no data for gender"), ("official", "no official data")):
        with pytest.raises(slimvox.SlimvoxError, match=message):
            list(
                evaluate(
                    EvaluationPlan(
                        model="fbank",
                        data=tmp_path,
                        suite=suite,  # type: ignore[arg-type]
                        tasks=("gender",),
                        cache=tmp_path / "cache",
                    )
                )
            )


def test_its_own_small_data_are_its_mini_data(tmp_path: Path, table: Path) -> None:
    (tmp_path / "tables").mkdir()
    table.rename(tmp_path / "tables" / "gender.tsv")
    unregister_task("gender")
    register_task(dataclasses.replace(GENDER, mini_folder=tmp_path / "tables"))
    assert default_tasks("mini")[-1] == "gender" and len(default_tasks("mini")) == 11


def test_names_are_taken_once() -> None:
    with pytest.raises(ValueError, match="registered already"):
        register_task(GENDER)
    with pytest.raises(ValueError, match="registered already"):
        register_task(dataclasses.replace(GENDER, name="gender2"))


def test_with_a_file_of_a_format_defined_outside_the_package(
    tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    register_format(NumpyWeights())
    try:
        model = models.directory(tmp_path / "model", "hubert", num_hidden_layers=1)
        file = slimvox.export_encoder(model, format="npz").path
        assert run([*arguments(tmp_path, table, str(file)), "--json"]) == 0
        assert run([*arguments(tmp_path, table, str(model)), "--json", "--out", str(tmp_path / "torch")]) == 0
    finally:
        unregister_format("npz")
    ours, theirs = (read_result(tmp_path / out / "gender.json") for out in ("out", "torch"))
    assert ours is not None and theirs is not None
    assert ours.scores["gender"]["mean"] == theirs.scores["gender"]["mean"]
    assert ours.configuration["parameters"] == theirs.configuration["parameters"]


def test_the_docs_list_the_tasks() -> None:
    """The first columns of the table in docs/evaluation.md are made from the tasks."""
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    for each in SUPERB:
        metrics = ", ".join(f"{m.title} {'↑' if m.higher_is_better else '↓'}" for m in each.metrics)
        assert f"\n| {each.name} | {each.title} | {metrics} | " in page
