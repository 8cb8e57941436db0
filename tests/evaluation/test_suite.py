"""The command: results, resuming, the table, and what is said when something is wrong."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import models
import slimvox
from evaluation_tables import write_table
from slimvox.cli.main import run
from slimvox.evaluation import result_table
from slimvox.evaluation.against import Difference, differences
from slimvox.evaluation.data_fingerprint import _plain
from slimvox.evaluation.intervals import Estimate
from slimvox.evaluation.points import METRICS, counted_metrics
from slimvox.evaluation.protocols import overridden
from slimvox.evaluation.result_table import fixed_rows, overall, print_differences, print_table
from slimvox.evaluation.results import YARDSTICK, TaskResult, read_result
from slimvox.evaluation.suite import EvaluationPlan, evaluate
from slimvox.evaluation.tasks import task
from slimvox.evaluation.upstreams import Upstream
from slimvox.util.errors import SlimvoxError

WriteTones = Callable[..., str]
QUICK = ("ks.steps=20", "ks.learning_rates=0.01,0.001", "er.steps=10")


@pytest.fixture
def table(tmp_path: Path, write_tones: WriteTones) -> Path:
    rows = []
    for number in range(24):
        label = "abc"[number % 3]
        split = ("train", "train", "dev", "test")[number % 4]
        rows.append({"path": write_tones(f"{number}", label, seed=number), "split": split, "label": label})
    return write_table(tmp_path / "tones.tsv", rows)


@pytest.fixture
def arguments(tmp_path: Path, table: Path) -> list[str]:
    return [
        *("evaluate", "fbank", "--data", str(tmp_path / "data"), "--manifest", f"ks={table}"),
        *("--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out"), "--set", *QUICK),
    ]


def test_the_command_prints_a_table_and_writes_the_whole_configuration(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments, "--seeds", "2"]) == 0
    out = capsys.readouterr().out
    assert "KS" in out and "accuracy" in out and "±" in out, out
    assert "fbank on your own tables" in out
    result = json.loads((tmp_path / "out" / "ks.json").read_text())
    assert len(result["scores"]["ks"]["seeds"]) == 2
    assert result["scores"]["ks"]["chance"] == pytest.approx(100 / 3, abs=10)
    configuration = result["configuration"]
    assert configuration["model"] == "fbank" and configuration["seeds"] == 2
    assert configuration["protocol"]["learning_rates"] == [0.01, 0.001]
    assert configuration["protocol"]["steps"] == 20
    assert set(result["chosen"][0]["dev_accuracy_by_learning_rate"]) == {"0.01", "0.001"}
    assert result["seconds"]["encode"] > 0


def test_a_finished_task_is_not_repeated(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 0
    file = tmp_path / "out" / "ks.json"
    changed = file.stat().st_mtime_ns
    assert run([*arguments, "--json"]) == 0
    printed = capsys.readouterr().out
    content = json.loads(printed[printed.index("{") :])
    assert content["results"][0]["reused"] is True
    assert file.stat().st_mtime_ns == changed


def test_a_result_of_another_configuration_is_neither_reused_nor_replaced(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 0
    before = (tmp_path / "out" / "ks.json").read_text()
    assert run([*arguments, "--seeds", "2"]) == 2
    assert "another configuration (different numbers of seeds)" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "out" / "ks.json").read_text() == before
    (tmp_path / "out" / "ks.json").write_text("{}")
    assert run(arguments) == 2


def test_folds_are_averaged_seed_by_seed(tmp_path: Path, table: Path, bands: Upstream) -> None:
    plan = EvaluationPlan(
        model="fbank",
        data=tmp_path / "data",
        manifests={"er": (table, table)},
        tasks=("er",),
        seeds=2,
        overrides=QUICK,
        cache=tmp_path / "cache",
    )
    (result,) = evaluate(plan)
    first, second = result.scores["er"]["folds"]
    assert first == second and result.scores["er"]["seeds"] == pytest.approx(first)
    assert len(result.chosen) == 2


def test_an_encoder_of_another_frame_rate_can_be_evaluated(tmp_path: Path, table: Path) -> None:
    model = models.directory(tmp_path / "model", "hubert", conv_stride=(5, 2, 4))
    plan = EvaluationPlan(
        model=str(model),
        data=tmp_path / "data",
        manifests={"ks": (table,)},
        tasks=("ks",),
        overrides=QUICK,
        cache=tmp_path / "cache",
        out=tmp_path / "out",
    )
    (result,) = evaluate(plan)
    assert result.details[0]["frame_rate_hz"] == 400
    assert read_result(tmp_path / "out" / "ks.json") == result


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--tasks", "kws"], "`task` must be one of"),
        (["--seeds", "0"], "`--seeds` must be at least 1"),
        (["--set", "ks.stepz=3"], "there is no field stepz"),
        (["--set", "steps=3"], "must be TASK.FIELD=VALUE"),
        (["--set", "ks.steps=many"], "`steps` must be a whole number, but is 'many' instead"),
        (["--data", "/nowhere/at/all"], "there is no data folder"),
        (["--manifest", "ks"], "must be TASK=FILE"),
        (["--manifest", "ks=none.tsv"], "there is no manifest none.tsv"),
    ],
)
def test_bad_settings_are_said_in_one_sentence(
    arguments: list[str], more: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run([*arguments, *more]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_missing_audio_of_mini_superb_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", "fbank", "--data", str(tmp_path), "--cache", str(tmp_path / "cache")]
    assert run([*arguments, "--tasks", "qbe"]) == 2
    assert "800 of 800 recordings" in " ".join(capsys.readouterr().err.split())


def test_overrides_reach_their_task_only() -> None:
    mini = task("ks").protocols["mini"]
    changed = overridden("ks", mini, ("ks.balanced=false", "asr.steps=7", "ks.train_seconds=none"))
    assert changed.balanced is False and changed.steps == mini.steps  # type: ignore[attr-defined]
    with pytest.raises(SlimvoxError, match="`balanced` must be true or false"):
        overridden("ks", mini, ("ks.balanced=yes",))


def _result(suite: str, scores: dict[str, float], **configuration: str) -> TaskResult:
    described: dict[str, Any] = {name: {"mean": value} for name, value in scores.items()}
    return TaskResult(
        task="x",
        configuration={"suite": suite, **configuration},
        scores=described,
        chance_is="",
        counts={},
        skipped={},
        chosen=[],
        details=[],
        seconds={},
    )


def test_numbers_over_all_tasks_need_all_of_them() -> None:
    scores = dict.fromkeys(METRICS, 50.0)
    assert set(overall([_result("official", scores)], own_data=False)) == {"superb_s", "mean11"}
    assert overall([_result("official", scores)], own_data=True) == {}
    del scores["er"]
    assert overall([_result("official", scores)], own_data=False) == {}


def test_tables_lose_no_word_at_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_table, "_score", lambda result, metric: "96.43 ± 11.49")
    out = io.StringIO()
    console = Console(file=out, width=80)
    score = {"title": "WER", "mean": 96.43, "spread": 11.49, "chance": 100.42}
    result = _result("mini", {"sf_cer": 0.0}, yardstick=YARDSTICK, model="embedded")
    result = replace(
        result,
        task="transcription",
        scores={"sf_cer": {**score, "percent": True, "higher_is_better": False}},
        chosen=[{"learning_rate": 0.0003}, {"learning_rate": 0.001}],
        counts={"test": 12_345},
        seconds={"encode": 12_345.0, "fit": 12_345.0},
    )
    print_table(console, [result])
    change = Difference(
        task="transcription",
        title="WER",
        percent=True,
        higher_is_better=False,
        first=100.42,
        second=100.42,
        difference=Estimate(value=-12.34, error=11.49, degrees=5.0),
    )
    print_differences(console, ("a", "b"), [change])
    lines = out.getvalue().splitlines()
    assert "…" not in out.getvalue() and max(map(len, lines)) <= 80
    (row,) = (line for line in lines if "0.0003" in line)
    assert all(word in row for word in ("96.43 ± 11.49", "100.42", "12345", "3.4 h")), row
    assert "embedded on mini-SUPERB 2" in out.getvalue()
    assert any("within noise" in line and "-12.34 ± " in line for line in lines)


def test_mini_needs_the_tasks_that_count_and_no_others() -> None:
    fixed = fixed_rows()
    assert fixed is not None and "asv" not in fixed.tasks
    scores = {metric: fixed.teacher[metric] for metric in counted_metrics(fixed.tasks)}
    results = [_result("mini", scores, yardstick=YARDSTICK)]
    assert overall(results, own_data=False) == {"mini": pytest.approx(1000)}
    del scores["er"]
    assert overall([_result("mini", scores, yardstick=YARDSTICK)], own_data=False) == {}


def test_results_of_the_first_version_load_and_are_not_compared_with_later_ones() -> None:
    first, fixed = fixed_rows(1), fixed_rows()
    assert first is not None and fixed is not None
    scores = {metric: first.teacher[metric] for metric in counted_metrics(first.tasks)}
    old, new = _result("mini", scores), _result("mini", scores, yardstick=YARDSTICK)
    assert overall([old], own_data=False) == {"mini_1": pytest.approx(1000)}
    assert overall([old, new], own_data=False) == {}
    with pytest.raises(
        SlimvoxError,
        match="x: the first model and the second have different versions of mini-SUPERB",
    ):
        differences([old], [new], fixed)


def test_two_models_are_compared_clip_by_clip(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments, "--seeds", "2", "--against", "fbank"]) == 0
    out = capsys.readouterr().out
    assert "fbank against fbank" in out and "identical" in out
    kept = read_result(tmp_path / "out" / "against" / "ks.json")
    assert kept is not None and len(kept.outcomes["ks"]["sources"]) == kept.counts["test"]
    other = models.directory(tmp_path / "model", "hubert")
    again = [*arguments[:1], str(other), *arguments[2:-4], "--seeds", "2", "--set", *QUICK, "--json"]
    again[again.index("--out") + 1] = str(tmp_path / "second")
    assert run([*again, "--against", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    content = json.loads(printed[printed.index("{") :])
    assert content["against"] == "fbank"
    (difference,) = content["differences"]
    mean = content["results"][0]["scores"]["ks"]["mean"]
    assert difference["first"] == mean and difference["second"] == kept.scores["ks"]["mean"]
    assert difference["difference"] == mean - kept.scores["ks"]["mean"]
    assert not (tmp_path / "second" / "against").exists()


def test_an_unknown_model_to_compare_with_is_an_error_before_the_evaluation(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments, "--against", str(tmp_path / "nothing")]) == 2
    assert "nothing" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_an_encoder_in_memory_scores_as_its_directory(tmp_path: Path, table: Path) -> None:
    model = models.directory(tmp_path / "model", "hubert")
    encoder = slimvox.load(model).train()
    options: dict[str, Any] = {"manifests": {"ks": [table]}, "overrides": QUICK, "cache": tmp_path / "cache"}
    told: list[str] = []
    by_name = slimvox.evaluate(model, tmp_path / "data", device="cpu", **options)
    given = slimvox.evaluate(encoder, tmp_path / "data", device="cpu", on_progress=told.append, **options)
    assert [result.task for result in given.results] == ["ks"] and "KS done" in told
    assert given.results[0].scores == by_name.results[0].scores
    assert given.results[0].configuration["model"] == "SpeechEncoder"
    assert given.overall == {} and json.loads(json.dumps(given.to_dict()))["results"]
    assert encoder.training and all(each.requires_grad for each in encoder.parameters())


@pytest.mark.parametrize("root", ["/data", "/data/", "/", ".", "data"])
@pytest.mark.parametrize(
    "path", ["/data/a/b.wav", "/data", "/database/a.wav", "data/a.wav", "a.wav", "/a.wav"]
)
def test_paths_in_the_description_are_relative_as_pathlib_has_it(root: str, path: str) -> None:
    given, folder = Path(path), Path(root)
    expected = str(given.relative_to(folder)) if given.is_relative_to(folder) else str(given)
    assert _plain(given, str(folder), folder.anchor) == expected


def test_a_learning_rate_that_diverges_has_no_score(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("ks.steps=8", "ks.learning_rates=1e30,1e-3", "ks.gradient_clip=1e30")
    assert run([*arguments[: -len(QUICK)], *settings, "--json"]) == 0
    printed = capsys.readouterr().out
    (result,) = json.loads(printed[printed.index("{") :], parse_constant=pytest.fail)["results"]
    scores = result["chosen"][0]["dev_accuracy_by_learning_rate"]
    assert scores["1e+30"] is None and scores["0.001"] >= 0


def test_results_of_audio_that_has_changed_are_not_reused(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 0
    audio = sorted((tmp_path / "data").rglob("*.wav"))[0]
    audio.write_bytes(audio.read_bytes()[:-1000])
    capsys.readouterr()
    assert run(arguments) == 2
    assert "different sizes of audio files" in " ".join(capsys.readouterr().err.split())
    # Results of earlier versions do not have the entry.
    file = tmp_path / "out" / "ks.json"
    content = json.loads(file.read_text())
    del content["configuration"]["audio_fingerprint"]
    file.write_text(json.dumps(content))
    assert run(arguments) == 0


def test_results_that_cannot_be_compared_are_an_error_before_anything_is_computed(
    arguments: list[str], tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments, "--seeds", "1"]) == 0
    again = [*arguments, "--against", str(tmp_path / "out")]
    again[again.index("--out") + 1] = str(tmp_path / "second")
    capsys.readouterr()
    assert run([*again, "--seeds", "2"]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "ks: this evaluation and the earlier one have different numbers of seeds" in message
    other = [word.replace("ks=", "er=") for word in again]
    assert run([*other, "--seeds", "1"]) == 2
    assert "are of ks, and none of er" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "second").exists()
