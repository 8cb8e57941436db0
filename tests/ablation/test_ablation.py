"""benchmarks/ablation: the arms, the grid, the table."""

from __future__ import annotations

import csv
import itertools
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from score_files import write_scores
from slimvox.evaluation.points import FixedRows, mini_score
from slimvox.evaluation.result_table import fixed_rows
from slimvox.pruning.recipe import load_recipe
from slimvox.util.errors import SlimvoxError
from tiny_runs import SETTINGS, make_speech, make_teacher

FOLDER = Path(__file__).parents[2] / "benchmarks" / "ablation"
sys.path.insert(0, str(FOLDER))

import arms  # noqa: E402
import results  # noqa: E402
import run  # noqa: E402
import steps  # noqa: E402
import table  # noqa: E402


@pytest.mark.parametrize("arm", arms.ARMS, ids=lambda arm: arm.name)
def test_every_arm_is_a_recipe(arm: arms.Arm) -> None:
    recipe = load_recipe("quick", list(run.settings(arm, 300)))
    first = 150 if recipe.gates.sparsity_control == "lagrangian" else 100
    assert (recipe.prune.steps, recipe.finish.steps) == (first, 300 - first)
    assert recipe.gates.ramp_steps == round(0.87 * first)
    for name, value in arm.overrides.items():
        found: Any = recipe.to_dict()
        for part in name.split("."):
            found = found[part]
        assert found == value


@pytest.mark.parametrize(("name", "rate"), [("paper", 4.0), ("multipliers", 1.0)])
def test_multipliers_move_as_far_in_a_longer_stage(name: str, rate: float) -> None:
    """At the same rate, they rang in 6,000 steps, and gates ended at 79 to 88 % for a target of 72 %."""
    (arm,) = (arm for arm in arms.ARMS if arm.name == name)
    for total, expected in ((600, rate), (6_000, rate / 10)):
        recipe = load_recipe("quick", list(run.settings(arm, total)))
        assert recipe.gates.multiplier_learning_rate == pytest.approx(expected)
    (projected,) = (arm for arm in arms.ARMS if arm.name == "quick")
    assert not any(text.startswith(run.MULTIPLIER_RATE) for text in run.settings(projected, 6_000))


def test_no_arm_is_another_one_again() -> None:
    arms_as_run = [
        (load_recipe("quick", list(run.settings(arm, 300))), arm.control, arm.target) for arm in arms.ARMS
    ]
    for first, second in itertools.combinations(arms_as_run, 2):
        assert first != second


def test_names_are_unique_and_sizes_complete() -> None:
    names = [arm.name for arm in arms.ARMS]
    assert len(set(names)) == len(names)
    assert sum(arm.kind == "size" for arm in arms.ARMS) == 18


@pytest.mark.parametrize(
    ("first", "second", "percent", "text"),
    [
        # Standard error sqrt(.02 / 2 + .02 / 2) = .1414, 2 degrees of freedom, t = 4.303.
        ((2.0, 2.2), (1.0, 1.2), False, "**+1** (+0 to +2)"),
        ((200.0, 220.0), (100.0, 120.0), False, "**+100** (+39 to +161)"),
        ((200.0, 220.0), (100.0, 120.0), True, "**+91 %** (+36 to +146)"),
        # Standard error sqrt(.5 / 2 + .605 / 2) = .7433, 1.98 degrees of freedom, t = 4.345.
        ((100.0, 200.0), (150.0, 260.0), False, "-55 (-378 to +268)"),
        # Variances that differ: twice the standard error (6.3) is less than the difference, Welch's interval is not.
        ((100.0, 111.0), (93.0, 93.0), False, "+12 (-57 to +82)"),
        ((100.0,), (150.0, 260.0), False, "-105 (one run)"),
        ((100.0, 100.0), (90.0, 90.0), False, "+10, no spread"),
        ((), (1.0,), False, "-"),
    ],
)
def test_differences_by_hand(
    first: tuple[float, ...], second: tuple[float, ...], percent: bool, text: str
) -> None:
    assert results.difference(first, second, percent=percent) == text


SCORES = {
    "pr": 80.0,
    "asr": 80.0,
    "ks": 70.0,
    "qbe": 0.2,
    "sid": 35.0,
    "sd": 35.0,
    "ic": 20.0,
    "sf_f1": 60.0,
    "sf_cer": 50.0,
    "er": 55.0,
}


def fixed() -> FixedRows:
    rows = fixed_rows()
    assert rows is not None
    return rows


def test_main_arms_are_scored_on_all_tasks_that_count_and_others_on_four(tmp_path: Path) -> None:
    by_name = {arm.name: arm for arm in arms.ARMS}
    for main in ("dphubert", "top-layers", "quick-80"):
        assert run.missing_tasks(by_name[main], tmp_path) == fixed().tasks
    assert run.missing_tasks(by_name["maps"], tmp_path) == run.QUICK_TASKS
    write_scores(tmp_path / "scores", "m", {"ks": 70.0}, parameters=1)
    assert run.missing_tasks(by_name["maps"], tmp_path) == ("pr", "sid", "er")
    call = run.scoring(tmp_path, ("pr", "er"), Path("sets"))
    assert call[:2] == ["evaluate", str(tmp_path)] and call[-3:] == ["--tasks", "pr", "er"]


def test_data_that_is_not_there_fails_the_run_and_keeps_the_pruned_encoder(tmp_path: Path) -> None:
    teacher, speech = make_teacher(tmp_path / "teacher"), make_speech(tmp_path / "speech")
    out = tmp_path / "runs"
    done = grid(
        teacher, speech, out, "--arms", "random", "--seeds", "1", "--score", str(tmp_path / "nowhere")
    )
    assert done.returncode == 1 and "random/0: pruned" in done.stdout and "random/0: failed" in done.stdout
    assert "there is no data folder" in (out / "random" / "0.log").read_text()


def grid(teacher: Path, speech: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    settings = [f"{name}={value}" for name, value in SETTINGS.items() if "steps" not in name]
    command = [sys.executable, str(FOLDER / "run.py"), str(speech), "--held-out", str(speech)]
    return subprocess.run(
        [
            *command,
            *("--out", str(out), "--model", str(teacher), "--steps", "4", "--seeds", "2"),
            *("--set", *settings),
            *more,
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_grid_runs_once_and_becomes_a_table(tmp_path: Path) -> None:
    teacher, speech = make_teacher(tmp_path / "teacher"), make_speech(tmp_path / "speech")
    out, page = tmp_path / "runs", tmp_path / "page.md"
    first = grid(teacher, speech, out, "--arms", "random", "--jobs", "2")
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stdout.count("pruned") == 2
    assert "| random gates | 2 |" in (out / "ablation.md").read_text()
    again = grid(teacher, speech, out, "--arms", "random", "--jobs", "2")
    assert (again.returncode, again.stdout) == (0, "")

    # One of the two was scored: its points must stand in its own line, not in the first.
    write_scores(out / "random" / "1" / "scores", "random/1", SCORES, parameters=1)

    page.write_text("# Ablation\n\nBy hand.\n\n<!-- tables: begin -->\nold\n<!-- tables: end -->\n\nBelow.\n")
    arguments = [str(out), "--out", str(page), "--csv", str(tmp_path / "table.csv")]
    subprocess.run([sys.executable, str(FOLDER / "table.py"), *arguments], check=True)
    text = page.read_text()
    assert "By hand." in text and "Below." in text and "old" not in text
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["arm"], row["seed"], row["pr"]) for row in rows] == [
        ("random", "0", ""),
        ("random", "1", "80.0"),
    ]
    assert rows[0]["mini"] == "" and float(rows[1]["mini"]) == pytest.approx(mini_score(SCORES, fixed()))
    assert f"| {mini_score(SCORES, fixed()):.0f} |" in text and "| dense teacher |" in text
    outcomes = [
        json.loads((out / "random" / str(seed) / "run" / "outcome.json").read_text()) for seed in (0, 1)
    ]
    errors = [outcome["distance_after_finish"]["relative_error"] for outcome in outcomes]
    assert [float(row["error"]) for row in rows] == pytest.approx(errors)
    compared = [json.loads((out / "random" / str(seed) / results.COMPARISON).read_text()) for seed in (0, 1)]
    mapped = [statistics.fmean(each["sources"][0]["distances"]["mapped_errors"]) for each in compared]
    assert [float(row["mapped"]) for row in rows] == pytest.approx(mapped) and min(mapped) > 0
    assert f"| {table.with_spread(mapped, 3)} |" in text
    (read,) = results.read_rows(tmp_path / "table.csv")
    assert read.errors == pytest.approx(errors) and read.mini == [pytest.approx(mini_score(SCORES, fixed()))]
    subprocess.run(
        [sys.executable, str(FOLDER / "table.py"), str(tmp_path / "table.csv"), "--out", str(page)],
        check=True,
    )
    assert page.read_text() == text
    mean = sum(errors) / 2
    spread = abs(errors[0] - errors[1]) / 2**0.5
    assert (
        f"| random gates | 2 | {table.with_spread([o['distance_after_prune']['relative_error'] for o in outcomes], 3)}"
        in text
    )
    assert f"**{mean:.3f} ± {spread:.3f}**" in text


def test_every_table_is_rectangular() -> None:
    def result(seed: str, error: float, mini: float) -> results.Result:
        return results.Result(
            seed=seed,
            after_prune=0.5,
            error=error,
            mapped=0.5 * error,
            cosine=0.1,
            parameters=0.28,
            macs=0.3,
            speed_up=2.0 + error,
            scores=SCORES,
            mini=mini,
        )

    by_name = {arm.name: arm for arm in arms.ARMS}
    rows = [
        results.Row(
            arm=by_name[name],
            runs=(result("0", error, 900 + points), result("1", 1.1 * error, 905 + points)),
        )
        for name, error, points in (
            ("quick", 0.1, 50),
            ("multipliers", 0.11, 40),
            ("paper", 0.2, 0),
            ("dphubert", 0.3, -40),
            ("maps", 0.22, 0),
            ("quick-90", 0.4, -100),
            ("top-layers-90", 0.8, -200),
            ("top-layers-80", 0.6, -200),
        )
    ]
    text = table.tables(rows)
    lines = text.splitlines()
    for first, second in itertools.pairwise(lines):
        if first.startswith("|") and second.startswith("|"):
            assert first.count("|") == second.count("|")
    # Errors, mapped errors and points by hand as in `test_differences_by_hand`; the seeds differ as much in all arms.
    assert (
        "| DPHuBERT's recipe | **+200 %** (+74 to +326) | **+200 %** (+74 to +326) | **-90** (-105 to -75) |"
        in text
    )
    assert (
        "| **+50 %** (+7 to +93) | **+50 %** (+7 to +93) | **-40** (-55 to -25) |" in text
    )  # beside `paper`
    # Ideas are beside what they are ideas on, and nothing else.
    ideas = [line for line in lines if line.startswith("| `quick`, with maps | **+")]
    assert ["**+120 %**" in line for line in ideas] == [True]
    # Sizes are beside `quick` of the same size.
    sizes = [line for line in lines if line.startswith("| top layers dropped, ") and " to " in line]
    assert [line[:49] for line in sizes] == ["| top layers dropped, 90 % fewer | **+100 %** (+3"]


def test_an_arm_that_fails_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    teacher, speech = make_teacher(tmp_path / "teacher"), make_speech(tmp_path / "speech")
    (tmp_path / "runs" / "random" / "0").mkdir(parents=True)
    (tmp_path / "runs" / "random" / "0" / "config.json").write_text("{}")
    done = grid(teacher, speech, tmp_path / "runs", "--arms", "random", "magnitude", "--seeds", "1")
    assert done.returncode == 1 and "random/0" in done.stderr
    assert "magnitude/0: pruned" in done.stdout


def test_a_table_of_nothing_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(FOLDER / "table.py"), str(tmp_path), "--out", str(tmp_path / "page.md")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "no run in" in done.stderr and not (tmp_path / "page.md").exists()


def test_a_csv_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("arm,runs\nquick,3\n")
    with pytest.raises(SlimvoxError, match="has no columns `arm` and `seed`"):
        results.read_rows(tmp_path / "other.csv")


def test_errors_by_number_of_steps(tmp_path: Path) -> None:
    rows = {}
    for count, errors in ((150, (0.3, 0.2)), (1200, (0.05,))):
        runs = []
        for number, error in enumerate(errors):
            folder = tmp_path / str(count) / "quick" / str(number)
            (folder / "run").mkdir(parents=True)
            log = [{"audio_seconds_per_second": rate} for rate in (1.0, 4.0, 40.0)]
            (folder / "run" / "log.jsonl").write_text("".join(json.dumps(each) + "\n" for each in log))
            measured = {
                "after_prune": 2 * error,
                "error": error,
                "mapped": None,
                "cosine": 0.0,
                "parameters": 0.28,
                "macs": 0.3,
            }
            runs.append(results.Result(directory=folder, seed=str(number), scores={}, mini=None, **measured))
        rows[count] = results.Row(arm=steps.ARM, runs=tuple(runs))
    lines = steps.table(rows).splitlines()
    assert lines[2] == "| 150 (50 + 100) | 0.3 h | 5 min | 0.500 | **0.250** | 2 |"
    assert lines[3] == "| 1,200 (400 + 800) | 2.7 h | 40 min | 0.100 | **0.050** | 1 |"
    with pytest.raises(SlimvoxError, match="no run is finished"):
        steps.table({})
