"""The page: what stands on it, and that it stands alone."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from page_reader import Page
from score_files import write_benchmark, write_scores
from slimvox.costs import Parameters, parameters
from slimvox.report import read_runs, read_scores, read_speeds, report_page
from slimvox.util.quantities import short_number


def page_of(*paths: Path, scores: tuple[Path, ...] = (), benchmark: tuple[Path, ...] = ()) -> Page:
    runs = read_runs(paths)
    return Page(report_page(runs, read_scores(scores, runs), read_speeds(benchmark, runs)))


def test_the_page_has_the_numbers_of_the_run(learned: Path) -> None:
    page = page_of(learned)
    (run,) = read_runs([learned])
    outcome = json.loads((learned / "run" / "outcome.json").read_text())
    summary = page.section("summary").text
    assert run.parameters is not None and short_number(run.parameters) in summary
    assert run.macs_10s is not None and short_number(run.macs_10s) in summary
    for stage in ("prune", "finish"):
        assert f"{outcome[f'distance_after_{stage}']['relative_error']:.3f}" in summary
    assert "6 + 4" in summary
    recipe = page.section("recipe").text
    for section, fields in run.recipe.items():
        if isinstance(fields, dict):
            assert all(name in recipe for name in (section, *fields))
    assert outcome["environment"]["torch"] in recipe and "float32" in recipe


def test_the_heat_maps_show_each_head(learned: Path) -> None:
    anatomy = page_of(learned).section("anatomy")
    (run,) = read_runs([learned])
    assert run.anatomy is not None and run.dense is not None
    heads = [head for layer in run.anatomy.layers for head in layer.heads]
    everything = sum(len(layer.heads) for layer in run.dense.layers)
    # Two maps: queries and keys, values and outputs.
    assert len(anatomy.of("rect", "gone")) == 2 * (everything - len(heads))
    shades = [float(rect["fill-opacity"]) for rect in anatomy.of("rect", "heat") if "fill-opacity" in rect]
    width = run.dense.head_width
    expected = [head.qk / width for head in heads] + [head.vo / width for head in heads]
    assert shades == pytest.approx(expected, abs=0.006)
    for now, before in zip(run.anatomy.layers, run.dense.layers, strict=True):
        assert f"{now.intermediate or 'none'} of {before.intermediate}" in anatomy.text
    for conv, dense in zip(run.anatomy.convolutions, run.dense.convolutions, strict=True):
        assert f"{conv.channels} of {dense.channels}" in anatomy.text


def test_training_and_gates_are_drawn(learned: Path) -> None:
    page = page_of(learned)
    training = page.section("training")
    for title in ("Distillation loss", "Expected sparsity", "λ₁", "λ₂", "Learning rate", "surgery"):
        assert title in training.text
    assert len(training.of("polyline", "dashed")) == 1  # the target of the schedule
    gates = page.section("gates")
    (run,) = read_runs([learned])
    structures = [name for name, enabled in run.recipe["structures"].items() if enabled]
    assert len(gates.of("figure")) == len(structures)
    last = run.stage("prune")[-1]["gates"]["qk"]
    assert f"{sum(last)} gates" in gates.text


def test_costs_are_those_of_the_anatomies(learned: Path) -> None:
    costs = page_of(learned).section("costs")
    (run,) = read_runs([learned])
    assert run.anatomy is not None and run.dense is not None
    dense, pruned = Parameters().by_block(run.dense), Parameters().by_block(run.anatomy)
    for block, before, after in (
        ("front end", dense.kind("front_end"), pruned.kind("front_end")),
        ("attention", dense.kind("attention"), pruned.kind("attention")),
        ("feed-forward", dense.kind("feed_forward"), pruned.kind("feed_forward")),
        ("total", parameters(run.dense), parameters(run.anatomy)),
    ):
        shown = f"{block} {short_number(before)} {short_number(after)} {after / before:.0%}"
        assert shown in costs.text
    drawn = sum(float(part["width"]) for part in costs.of("rect", "part")[5:10])
    full = sum(float(part["width"]) for part in costs.of("rect", "part")[:5])
    assert drawn / full == pytest.approx(parameters(run.anatomy) / parameters(run.dense), abs=1e-3)


def test_the_page_loads_nothing_and_runs_nothing(runs: Path) -> None:
    page = page_of(runs)
    assert not re.search(r"https?:|@import|url\(|//", page.source)
    assert not page.of("script") and not page.of("link") and not page.of("img") and not page.of("iframe")
    assert not [attributes for _, attributes in page.tags if {"src", "href", "onload"} & set(attributes)]
    assert "prefers-color-scheme: dark" in page.source and "width=device-width" in page.source


def test_every_coordinate_is_a_number(runs: Path) -> None:
    page = page_of(runs)
    for tag in ("rect", "line", "polyline", "polygon", "text", "path"):
        for attributes in page.of(tag):
            for name in ("x", "y", "x1", "x2", "y1", "y2", "width", "height", "points", "d"):
                for found in re.findall(r"[^\s,MHVLhvz]+", attributes.get(name, "")):
                    assert abs(float(found)) < 1e4
                    assert name not in ("width", "height") or float(found) >= 0


def test_several_runs_stand_side_by_side(runs: Path) -> None:
    page = page_of(runs)
    assert "2 runs compared" in page.text
    assert "random is a control (random)" in page.section("gates").text
    recipe = page.section("recipe").text
    assert "control" in recipe and "Settings in which the runs differ" in recipe
    captions = [name for name in ("learned", "random") if name in page.section("anatomy").text]
    assert captions == ["learned", "random"]
    assert len(page.section("anatomy").of("figure")) == 2 * 6
    assert [run.label for run in read_runs([runs])] == ["learned", "random"]
    assert [run.label for run in read_runs([runs / "random", runs])] == ["random", "learned"]


def test_a_directory_named_by_a_number_is_called_by_its_parent_too(learned: Path, tmp_path: Path) -> None:
    shutil.copytree(learned, tmp_path / "quick" / "0")
    assert [run.label for run in read_runs([tmp_path / "quick" / "0"])] == ["quick/0"]


def test_a_run_of_an_older_slimvox_still_has_a_page(learned: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(learned, old)
    distance = json.loads((old / "run" / "outcome.json").read_text())["distance_after_finish"]
    (old / "run" / "outcome.json").unlink()
    log = old / "run" / "log.jsonl"
    records = [json.loads(line) for line in log.read_text().splitlines()]
    log.write_text("".join(json.dumps({k: v for k, v in r.items() if k != "gates"}) + "\n" for r in records))
    page = page_of(old)
    assert "did not log its gates" in page.section("gates").text
    assert f"{distance['relative_error']:.3f}" in page.section("summary").text
    shutil.rmtree(old / "run")
    page = page_of(old)
    assert (
        "No log: old" in page.section("training").text and "no log of a stage 1" in page.section("gates").text
    )


def test_a_run_under_way_is_shown_as_far_as_it_has_come(learned: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    shutil.copytree(learned / "run", half / "run")
    settings = json.loads((half / "run" / "settings.json").read_text())
    (half / "run" / "settings.json").write_text(json.dumps({**settings, "status": "unfinished"}))
    log = half / "run" / "log.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("\n".join([*lines[:4], lines[4][:30]]))
    page = page_of(half)
    assert "Not finished: half" in page.text
    assert "Nothing has been removed yet" in page.section("anatomy").text
    assert len(read_runs([half])[0].log) == 4 and "Distillation loss" in page.section("training").text
    log.unlink()
    assert "No log: half" in page_of(half).section("training").text


def test_scores_and_speeds_are_shown_beside_the_runs_they_belong_to(runs: Path, tmp_path: Path) -> None:
    found = {run.label: run for run in read_runs([runs])}
    learned = found["learned"]
    assert learned.parameters is not None
    own = write_scores(
        tmp_path / "a",
        str(runs / "learned"),
        {"pr": 12.3, "ks": 87.6},
        parameters=learned.parameters,
        spread=1.5,
    )
    other = write_scores(tmp_path / "b", "fbank", {"pr": 45.6}, parameters=0)
    times = write_benchmark(tmp_path / "speed.json", {str(runs / "learned"): 2.5}, {})
    page = page_of(runs, scores=(own, other), benchmark=(times,))
    scores = page.section("scores")
    assert "mini-SUPERB" in scores.text and "PR: error ↓" in scores.text and "KS: accuracy ↑" in scores.text
    for text in ("12.3 % ± 1.5", "45.6 %", "87.6 % ± 1.5", "fbank", "learned"):
        assert text in scores.text
    bars = [bar["class"].split()[1] for bar in scores.of("rect", "bar")]
    assert sorted(bars) == ["c0", "c0", "neutral"]
    assert "2.50" in page.section("summary").text and "Abacus 3000" in page.section("speed").text


def test_names_can_hold_anything(learned: Path, tmp_path: Path) -> None:
    odd = tmp_path / "<b>&'\""
    shutil.copytree(learned, odd)
    page = page_of(odd)
    assert "<b>" not in page.source and odd.name in page.text
