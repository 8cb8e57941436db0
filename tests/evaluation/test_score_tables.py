"""Several models side by side, and the rows that fix the `mini` score."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import score_tables
import spread
from score_tables import (
    fixed_row,
    mini_by_seed,
    read_model,
    score_table,
    tasks_told_apart,
)

from slimvox.evaluation.against import check_comparable
from slimvox.evaluation.outcomes import Outcomes
from slimvox.evaluation.points import (
    ERROR_RATES,
    METRICS,
    METRICS_OF,
    FixedRows,
    mini_score,
)
from slimvox.evaluation.results import TaskResult
from slimvox.util.errors import SlimvoxError

ROOT = Path(__file__).parents[2]
LOW = {metric: 80.0 if metric in ERROR_RATES else 0.1 if metric == "qbe" else 20.0 for metric in METRICS}
HIGH = {metric: 40.0 if metric in ERROR_RATES else 0.3 if metric == "qbe" else 60.0 for metric in METRICS}

FIXED = FixedRows(fbank=LOW, teacher=HIGH)


def write(folder: Path, by_seed: Mapping[str, list[float]], **configuration: Any) -> Path:
    folder.mkdir()
    for task, metrics in METRICS_OF.items():
        own = [metric for metric in metrics if metric in by_seed]
        if not own:
            continue
        result = TaskResult(
            task=task,
            configuration={
                "model": folder.name,
                "model_fingerprint": f"hash of {folder.name}",
                "parameters": 1_500_000,
                "suite": "mini",
                "data_fingerprint": "one",
                "protocol": {"steps": 1},
                "seeds": 2,
                **configuration,
            },
            scores={
                metric: {
                    "title": metric,
                    "percent": metric != "qbe",
                    "higher_is_better": metric not in ERROR_RATES,
                    "mean": statistics.fmean(by_seed[metric]),
                    "spread": None,
                    "seeds": by_seed[metric],
                    "chance": 12.5,
                }
                for metric in own
            },
            chance_is="a guess",
            counts={"test": 3},
            skipped={},
            chosen=[],
            details=[],
            seconds={"encode": 30.0, "fit": 90.0, "total": 120.0, "processor": 60.0},
        )
        content = dataclasses.asdict(result)
        del content["reused"]
        (folder / f"{task}.json").write_text(json.dumps(content))
    return folder


def around(row: Mapping[str, float], change: float) -> dict[str, list[float]]:
    """Two seeds, the same distance below and above; query by example has one value."""
    return {
        metric: [value] if metric == "qbe" else [value - change, value + change]
        for metric, value in row.items()
    }


@pytest.fixture
def script() -> ModuleType:
    path = ROOT / "benchmarks" / "mini_superb" / "write_results.py"
    spec = importlib.util.spec_from_file_location("write_results", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_two_fixed_rows_are_0_and_1000(tmp_path: Path) -> None:
    for row, points in ((LOW, 0), (HIGH, 1000)):
        model = read_model("m", write(tmp_path / str(points), around(row, 0.0)))
        assert mini_by_seed(model, FIXED) == pytest.approx([points, points])
        assert fixed_row(model) == row


def test_a_score_is_counted_by_seed(tmp_path: Path) -> None:
    values = {**around(HIGH, 0.0), "ks": [56.0, 64.0], "asr": [40.0, 42.0]}
    model = read_model("m", write(tmp_path / "m", values))
    # 4 of 40 in one of ten tasks are 10 points; 2 more errors of 40 are 5 fewer.
    assert mini_by_seed(model, FIXED) == pytest.approx([990, 1005])


def test_the_table_has_mean_and_spread_and_chance(tmp_path: Path) -> None:
    models = [
        read_model("first", write(tmp_path / "a", around(HIGH, 1.0))),
        read_model("second", write(tmp_path / "b", {"ks": [50.0, 54.0]})),
    ]
    lines = score_table(models, None).splitlines()
    assert lines[0] == "| task | metric | first | second | chance |"
    assert "| KS | ks ↑ | 60.0 ± 1.4 | 52.0 ± 2.8 | 12.5 |" in lines
    assert "| QBE | qbe ↑ | 0.300 | - | 12.500 |" in lines
    assert "| SD | sd ↓ | 40.0 ± 1.4 | - | 12.5 |" in lines
    assert lines[-1] == "| parameters |  | 1.50 M | 1.50 M |  |"
    scored = score_table(models, FIXED).splitlines()
    assert "| **mini** | points, 10 tasks ↑ | 1000 ± 0 | - |  |" in scored
    assert len({line.count("|") for line in scored}) == 1
    times = score_tables.time_table(models).splitlines()
    assert "| KS | 30 + 90 | 30 + 90 |" in times
    assert times[-2:] == ["| all, minutes | 20.0 | 2.0 |", "| of a processor, minutes | 10.0 | 1.0 |"]


TWO_TASKS = FixedRows(fbank=LOW, teacher=HIGH, weights={"ks": 3.0, "asr": 1.0})
"""A percent of KS is 3 / 4 x 25 points, a percent of ASR 1 / 4 x 25 points."""


def recipe(folder: Path, *prunings: dict[str, list[float]]) -> Path:
    folder.mkdir()
    for number, values in enumerate(prunings):
        write(folder / str(number), values)
    return folder


def test_heads_and_prunings_by_hand(tmp_path: Path) -> None:
    first = recipe(
        tmp_path / "first",
        {"ks": [58.0, 62.0], "asr": [41.0, 43.0]},  # variance of the mean: 4 and 1
        {"ks": [61.0, 63.0], "asr": [46.0, 46.0]},  # 1 and 0
    )
    lines = spread.spread_table(spread.read_recipes([first]), TWO_TASKS).splitlines()
    heads = 18.75 * math.sqrt(2.5), 6.25 * math.sqrt(0.5)
    prunings = 18.75 * math.sqrt(2), 6.25 * math.sqrt(8)
    # The second is 2 percent better in KS, worth 37.5 points, and 4 worse in ASR, worth 25.
    total = 12.5 / math.sqrt(2)
    rest = math.sqrt(prunings[1] ** 2 - heads[1] ** 2)
    both = math.sqrt(math.hypot(*prunings) ** 2 - math.hypot(*heads) ** 2)
    assert lines[2:6] == [
        f"| KS | 0.75 | {heads[0]:.1f} | - | {prunings[0]:.1f} | 0.0 |",
        f"| ASR | 0.25 | {heads[1]:.1f} | - | {prunings[1]:.1f} | {rest:.1f} |",
        f"| sum, as if independent | 1.00 | {math.hypot(*heads):.1f} | - | {math.hypot(*prunings):.1f} | {both:.1f} |",
        f"| **sum** | 1.00 | {math.hypot(*heads):.1f} | - | {total:.1f} | 0.0 |",
    ]
    # One degree of freedom: chi squared is .000982 and 5.02 at 2.5 and 97.5 %.
    assert f"{total:.1f} points (95 % confidence interval {total / 2.2414:.1f} to" in lines[7]
    with_ten = math.sqrt(2 * math.hypot(*heads) ** 2 / 10)
    assert lines[7].startswith("2 prunings of 1 recipe: ") and lines[7].endswith(f"10: {with_ten:.1f}")
    assert lines[-1] == "| first | 2 | 988, 1000 | 994 ± 9 |"


def test_recipes_are_pooled_and_do_not_count_as_spread_themselves(tmp_path: Path) -> None:
    first = recipe(
        tmp_path / "first", {"ks": [60.0]}, {"ks": [62.0]}, {"ks": [64.0]}
    )  # variance 4, 2 degrees
    second = recipe(tmp_path / "second", {"ks": [20.0]}, {"ks": [24.0]})  # variance 8, 1 degree
    alone = recipe(tmp_path / "alone", {"ks": [90.0]})
    fixed = FixedRows(fbank=LOW, teacher=HIGH, weights={"ks": 1.0})
    lines = spread.spread_table(spread.read_recipes([first, second, alone]), fixed).splitlines()
    pooled = 25 * math.sqrt((2 * 4 + 8) / 3)
    assert lines[2] == f"| KS | 1.00 | 0.0 | - | {pooled:.1f} | {pooled:.1f} |"
    assert lines[-3:] == [
        "| first | 3 | 1000, 1050, 1100 | 1050 ± 50 |",
        "| second | 2 | 0, 100 | 50 ± 71 |",
        "| alone | 1 | 1750 | 1750 |",
    ]
    assert lines[6].startswith("6 prunings of 3 recipes: ")


def test_test_clips_that_only_one_pruning_gets_right_are_noise(tmp_path: Path) -> None:
    folder = recipe(tmp_path / "first", {"ks": [40.0]}, {"ks": [50.0]})
    # The two heads of the second pruning differ in one clip; that is no other clip's doing.
    right = [
        [[1.0] * 4 + [0.0] * 6] * 2,
        [[1.0] * 4 + [2.0] + [0.0] * 5, [1.0] * 4 + [0.0] * 6],
    ]
    for number, own in enumerate(right):
        path = folder / str(number) / "ks.json"
        outcomes = Outcomes(sources=[[f"clip {n}"] for n in range(10)], sizes=[1.0] * 10, values=own)
        content = json.loads(path.read_text())
        content["outcomes"] = {"ks": {**outcomes.__dict__}}
        path.write_text(json.dumps(content))
    fixed = FixedRows(fbank=LOW, teacher=HIGH, weights={"ks": 1.0})
    (_, _, line, *_) = spread.spread_table(spread.read_recipes([folder]), fixed).splitlines()
    # One of 10 clips differs: variance .1 of a clip, .01 of the mean, half of it for each pruning; 7.07 percent.
    clips, prunings, rest = (float(cell) for cell in line.split("|")[4:7])
    assert clips == pytest.approx(25 * 7.07, rel=0.1) and prunings == pytest.approx(25 * 7.07, rel=0.01)
    assert rest == pytest.approx(math.sqrt(max(0.0, prunings**2 - clips**2)), rel=0.1, abs=1.0)


def test_scores_of_runs_are_found_and_others_refused(tmp_path: Path) -> None:
    run = tmp_path / "quick" / "0"
    run.mkdir(parents=True)
    write(run / "scores", {"ks": [60.0, 62.0]})
    ((model,),) = spread.read_recipes([tmp_path / "quick"]).values()
    assert model.results == read_model("m", run / "scores").results
    write(tmp_path / "quick" / "1", {"ks": [60.0], "asr": [50.0]})
    lines = spread.spread_table(spread.read_recipes([tmp_path / "quick"]), TWO_TASKS).splitlines()
    assert [line.split(" |")[0] for line in lines[2:5]] == ["| KS", "| sum, as if independent", "| **sum**"]
    with pytest.raises(SlimvoxError, match="must hold a folder of scores"):
        spread.read_recipes([tmp_path])
    sd = recipe(tmp_path / "sd", {"sd": [1.0]})
    with pytest.raises(SlimvoxError, match="no task that counts"):
        spread.spread_table(spread.read_recipes([sd]), TWO_TASKS)


def test_results_that_do_not_compare(tmp_path: Path) -> None:
    models = [
        read_model("a", write(tmp_path / "a", {"ks": [1.0]})),
        read_model("b", write(tmp_path / "b", {"ks": [1.0]}, protocol={"steps": 2})),
    ]
    with pytest.raises(SlimvoxError, match="ks: a and b have different protocols"):
        check_comparable({model.name: model.results for model in models})
    (tmp_path / "empty").mkdir()
    with pytest.raises(SlimvoxError, match="there is no result"):
        read_model("c", tmp_path / "empty")
    with pytest.raises(SlimvoxError, match="a has no result for pr"):
        fixed_row(models[0])


def test_the_page_keeps_its_text(
    tmp_path: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "MINI", tmp_path)
    fbank, embedded = (
        write(tmp_path / name, around(row, 1.0)) for name, row in (("fbank", LOW), ("embedded", HIGH))
    )
    prunings = tmp_path / "prunings.csv"
    better = {name: value + (-4 if name in ERROR_RATES else 4) for name, value in HIGH.items()}
    # The single pruning of arm b has no spread.
    rows = [{"arm": "a", **HIGH}, {"arm": "a", **better}, {"arm": "b", **HIGH}]
    with prunings.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    others = tmp_path / "others.csv"  # of tasks that the first file has as well
    others.write_text("arm,ks\na,1\na,90\n")
    script.write_fixed_rows(fbank, embedded, [prunings, others])
    content = json.loads((tmp_path / "fixed_rows.json").read_text())
    assert content["rows"] == {"fbank": LOW, "embedded": HIGH}
    # 4 of 40 are 100 points; QbE's 4 of .2 are 20,000, and SID's and IC's noise is of more test clips than here.
    noise = dict.fromkeys(METRICS_OF, 100 / math.sqrt(2)) | {"qbe": 20_000 / math.sqrt(2)}
    noise |= {name: noise[name] * math.sqrt(tests / 3) for name, tests in (("sid", 200), ("ic", 139))}
    assert content["noise_in_points"] == pytest.approx(noise, abs=0.1)
    total = sum(1 / each for each in noise.values())
    assert content["weights"] == pytest.approx(
        {name: 1 / each / total for name, each in noise.items()}, abs=1e-4
    )
    # A task without scores of prunings has no weight.
    with prunings.open("w", newline="") as file:
        writer = csv.DictWriter(file, [name for name in rows[0] if name != "asv"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    script.write_fixed_rows(fbank, embedded, [prunings])
    content = json.loads((tmp_path / "fixed_rows.json").read_text())
    assert set(content["weights"]) == set(METRICS_OF) - {"asv"} and content["rows"]["fbank"] == LOW
    assert sum(content["weights"].values()) == pytest.approx(1, abs=1e-3)
    assert "asv does not count" in capsys.readouterr().out
    with pytest.raises(
        SlimvoxError, match="the row of fbank must come from the model fbank, but is of embedded"
    ):
        script.write_fixed_rows(embedded, fbank, [prunings])

    page = tmp_path / "page.md"
    script.write_page([f"log-mel={fbank}"], page)
    page.write_text("Before.\n" + page.read_text() + "After.\n")
    script.write_page([f"teacher={embedded}"], page)
    text = page.read_text()
    assert text.startswith("Before.\n") and text.endswith("After.\n")
    assert "| teacher |" in text and "log-mel" not in text


def test_tasks_that_the_fixed_rows_do_not_tell_apart_do_not_count() -> None:
    low, high = around(LOW, 0.5), around(HIGH, 0.5)
    # One sample deviation of seeds at 40 and 42 is 1.41, of both rows together 2: 3.9 apart is chance, 4.1 is not.
    low["asv"], high["asv"] = [44.9, 46.9], [41.0, 43.0]
    low["sid"], high["sid"] = [40.0, 42.0], [44.1, 46.1]
    high["sf_cer"] = low["sf_cer"]
    told = tasks_told_apart(low, high)
    assert set(METRICS_OF) - set(told) == {"asv", "sf"}
    fixed = FixedRows(fbank=LOW, teacher=HIGH, weights={"ks": 1.0, "qbe": 1.0})
    assert mini_score({"ks": 30.0, "qbe": 0.3}, fixed) == pytest.approx((250 + 1000) / 2)
    with pytest.raises(SlimvoxError, match="there is no qbe"):
        mini_score({"ks": 30.0, "asv": 1.0}, fixed)
