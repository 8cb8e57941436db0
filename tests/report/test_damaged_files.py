"""Whatever stands in the JSON files of a run, a page is made or one sentence says which file is wrong."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from score_files import write_benchmark, write_scores
from slimvox.report import read_runs, read_scores, read_speeds, report_page
from slimvox.report.figures.arms import arms_of
from slimvox.report.figures.quality import choose_quality
from slimvox.util.errors import SlimvoxError

Path_ = tuple[str | int, ...]
NONSENSE: tuple[Any, ...] = (
    *(None, True, -1, 0, 1.5, 10**30, 1e308, float("nan"), float("inf")),
    *("", "x", "0", [], [None], [[]], {}, {"a": []}, {"": {}}),
)
FILES = {
    "run/outcome.json": (),
    "run/settings.json": ("fingerprint",),
    "config.json:run": ("run",),
    "config.json:teacher": ("teacher",),
    "run/log.jsonl": (),
    "scores/er.json": (),
    "benchmark.json": (),
}


def places(content: Any, at: Path_ = ()) -> Iterator[Path_]:
    """Every value in a JSON document, from the outside in; of lists, the first item."""
    yield at
    items: Any = ()
    if isinstance(content, dict):
        items = content.items()
    elif isinstance(content, list):
        items = list(enumerate(content))[:1]
    for key, value in items:
        yield from places(value, (*at, key))


def replaced(content: Any, at: Path_, value: Any) -> Any:
    if not at:
        return value
    changed = copy.deepcopy(content)
    inner = changed
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    return changed


@pytest.fixture(scope="module")
def folder(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("damaged") / "learned"
    shutil.copytree(runs / "learned", made)
    write_scores(made / "scores", "x", {"er": 61.2}, parameters=1)
    write_benchmark(made / "benchmark.json", {str(made): 2.0}, {str(made): 1})
    return made


def look(folder: Path) -> str:
    """The steps of `slimvox report` and `slimvox figures` before they write."""
    records = read_runs([folder])
    scores = read_scores([], records)
    arms_of(records, choose_quality("distance", records, scores))
    return report_page(records, scores, read_speeds([folder / "benchmark.json"], records))


def look_with(folder: Path, name: str, at: Path_, value: Any) -> str:
    """The page with one value of a file replaced, or the sentence of the error."""
    path = folder / name.partition(":")[0]
    whole = path.read_text()
    first, *rest = whole.splitlines() if path.suffix == ".jsonl" else [whole]
    path.write_text("\n".join([json.dumps(replaced(json.loads(first), at, value)), *rest]))
    try:
        return look(folder)
    except SlimvoxError as error:
        return str(error)
    finally:
        path.write_text(whole)


@pytest.mark.parametrize(
    ("name", "at", "value"),
    [
        ("scores/er.json", ("configuration", "suite"), []),
        ("scores/er.json", ("configuration", "yardstick"), []),
        ("run/log.jsonl", ("l1",), None),
        ("run/log.jsonl", ("l1",), []),
    ],
)
def test_values_of_the_wrong_type_that_were_once_let_through(
    folder: Path, name: str, at: Path_, value: Any
) -> None:
    assert not look_with(folder, name, at, value).startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [
        (
            ("configuration", "suite"),
            ["mini"],
            "`configuration.suite` must be one of mini, official, but is ['mini']",
        ),
        (("configuration", "yardstick"), [], "`configuration.yardstick` must be a text, but is [] instead"),
        (("configuration", "data"), "er", "`configuration.data` must be a list, but is 'er' instead"),
        (("configuration", "parameters"), "1", "`configuration.parameters` must be a whole number"),
        (("configuration",), {"model": "x"}, "`configuration.model_fingerprint`, `configuration.parameters`"),
    ],
)
def test_a_wrong_value_in_a_score_file_is_a_plain_sentence(
    folder: Path, at: Path_, value: Any, said: str
) -> None:
    message = look_with(folder, "scores/er.json", at, value)
    assert f"er.json is not a result of slimvox evaluate ({said}" in message and message.endswith(
        "; remove it"
    )


@pytest.mark.parametrize("name", ["run/log.jsonl", "run/settings.json", "scores/er.json", "benchmark.json"])
def test_a_file_that_is_not_text_is_a_plain_sentence(folder: Path, name: str) -> None:
    before = (folder / name).read_bytes()
    (folder / name).write_bytes(b"\xff" + before)
    try:
        with pytest.raises(SlimvoxError, match=r"it is not UTF-8 text \(byte 0\)"):
            look(folder)
    finally:
        (folder / name).write_bytes(before)


@settings(max_examples=80)
@given(data=st.data())
def test_wrong_types_are_one_sentence_that_names_the_file(folder: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(FILES)))
    path = folder / name.partition(":")[0]
    whole = path.read_text()
    content = json.loads(whole.splitlines()[0] if path.suffix == ".jsonl" else whole)
    within = FILES[name]
    start = content
    for key in within:
        start = start[key]
    at = (*within, *data.draw(st.sampled_from(list(places(start)))))
    said = look_with(folder, name, at, data.draw(st.sampled_from(NONSENSE)))
    assert said.startswith("<!doctype html>") or path.name in said or str(folder) in said


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run/outcome.json", '{"distance_after_prune": 3}'),
        ("run/outcome.json", '{"distance_after_finish": {"relative_error": "small"}}'),
        ("run/outcome.json", '{"speed_up": [2]}'),
        ("run/outcome.json", '{"audio": []}'),
        ("run/outcome.json", "[" * 100_000),
        ("run/settings.json", '{"fingerprint": {"recipe": {"target": 1}}}'),
        ("run/settings.json", '{"fingerprint": {"precision": 16}}'),
        ("scores/er.json", "[" * 100_000),
        ("scores/er.json", '{"task": "er"}'),
        ("benchmark.json", '{"machine": []}'),
    ],
)
def test_what_is_wrong_is_said(folder: Path, name: str, content: str) -> None:
    before = (folder / name).read_text()
    (folder / name).write_text(content)
    try:
        with pytest.raises(SlimvoxError, match=name.partition("/")[2] or name):
            look(folder)
    finally:
        (folder / name).write_text(before)


def test_numbers_of_a_run_that_diverged_are_left_out(folder: Path) -> None:
    log = folder / "run" / "log.jsonl"
    before = log.read_text()
    first, *rest = before.splitlines()
    record = {**json.loads(first), "distillation": float("nan"), "gradient_norm": float("inf")}
    log.write_text("\n".join([json.dumps(record), *rest]))
    try:
        (run,) = read_runs([folder])
        assert not {"distillation", "gradient_norm"} & run.log[0].keys()
        assert "distillation" in run.log[1] and "NaN" not in look(folder)
    finally:
        log.write_text(before)


def test_scores_that_are_given_replace_those_of_the_run(folder: Path, tmp_path: Path) -> None:
    records = read_runs([folder])
    given = write_scores(tmp_path / "given", str(folder), {"er": 44.0, "ks": 90.0}, parameters=1)
    (scores,) = read_scores([given], records)
    assert scores.run == records[0] and {each.task for each in scores.results} == {"er", "ks"}
    again = write_scores(tmp_path / "again", str(folder), {"er": 44.0}, parameters=1)
    with pytest.raises(SlimvoxError, match="several folders with scores"):
        read_scores([given, again], records)
