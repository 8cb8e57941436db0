"""Figures 2 and 3 and the Pareto front: that they plot what was measured."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from score_files import write_scores
from slimvox.costs import parameters as dense_parameters
from slimvox.report import RunRecord, read_runs, read_scores
from slimvox.report.figures import choose_quality
from slimvox.report.figures.arms import arms_of
from slimvox.report.figures.scatter import front, pareto_figure, quality_figure
from slimvox.report.figures.straight_through import straight_through_figure, straight_through_pairs
from slimvox.report.figures.style import colour_and_marker
from slimvox.util.errors import SlimvoxError


@pytest.fixture(scope="module")
def found(runs: Path) -> dict[str, RunRecord]:
    return {run.label: run for run in read_runs([runs])}


def error_of(run: RunRecord) -> float:
    outcome = json.loads((run.directory / "run" / "outcome.json").read_text())
    return float(outcome["distance_after_finish"]["relative_error"])


def test_seeds_become_a_point_and_sizes_a_line(found: dict[str, RunRecord]) -> None:
    runs = list(found.values())
    arms = {arm.label: arm for arm in arms_of(runs, choose_quality("auto", runs, ()))}
    assert set(arms) == {"with STE", "without STE"}
    points = arms["with STE"].points
    assert [[run.label for run in point.runs] for point in points] == [["a", "b"], ["large"]]
    seeds = [error_of(found[name]) for name in ("a", "b")]
    assert points[0].quality == pytest.approx(np.mean(seeds))
    assert points[0].spread == pytest.approx((np.mean(seeds) - min(seeds), max(seeds) - np.mean(seeds)))
    assert [point.quality for point in arms["without STE"].points] == [error_of(found["plain"])]


def test_targets_of_different_kinds_are_different_lines(found: dict[str, RunRecord]) -> None:
    base, target = found["a"], found["a"].recipe["target"]
    in_time = replace(
        base,
        label="fast",
        recipe={**base.recipe, "target": {**target, "kind": "latency", "keep": 0.5}},
    )
    arms = arms_of(
        [base, found["large"], in_time], choose_quality("distance", [*found.values(), in_time], ())
    )
    assert {arm.label: len(arm.points) for arm in arms} == {"target.kind latency": 1, "target.kind params": 2}


def test_controls_and_lengths_are_named(found: dict[str, RunRecord]) -> None:
    base = found["a"]
    control = replace(base, label="control", control="random")
    longer = replace(
        base, label="longer", recipe={**base.recipe, "finish": {**base.recipe["finish"], "steps": 94}}
    )
    runs = [base, control, longer]
    labels = [arm.label for arm in arms_of(runs, choose_quality("distance", runs, ()))]
    assert labels == ["10 steps", "100 steps", "random gates, 10 steps"]
    labels = [arm.label for arm in arms_of(runs[:2], choose_quality("distance", runs, ()))]
    assert labels == ["learned gates", "random gates"]


def test_arms_with_a_folder_each_are_called_by_it(found: dict[str, RunRecord]) -> None:
    base, control = found["a"], replace(found["b"], control="random")
    larger = found["large"]
    at = Path("/runs")
    runs = [
        replace(base, directory=at / "learned" / "0"),
        replace(larger, directory=at / "learned-50" / "0"),
        replace(control, directory=at / "random" / "0"),
    ]
    quality = choose_quality("distance", runs, ())
    assert [arm.label for arm in arms_of(runs, quality)] == ["learned", "random"]
    # Sizes may be numbered from the first on, and folders of the same name lie in others.
    longer = {**base.recipe, "finish": {**base.recipe["finish"], "steps": 94}}
    runs = [
        replace(base, directory=at / "long" / "speed-2x" / "0", recipe=longer),
        replace(base, directory=at / "short" / "speed-2x" / "0"),
        replace(larger, directory=at / "short" / "speed-3x" / "0"),
    ]
    assert [arm.label for arm in arms_of(runs, quality)] == ["long/speed-2x", "short/speed"]
    # One folder for all says nothing.
    alike = [replace(run, directory=at / run.label) for run in (base, control)]
    assert "learned gates" in [arm.label for arm in arms_of(alike, quality)]


def test_arms_that_differ_in_much_are_named_by_what_tells_them_apart(found: dict[str, RunRecord]) -> None:
    base = found["a"]
    recipe = base.recipe
    distillation = {
        **recipe["distillation"],
        "maps": True,
        "layers": 2,
        "weights": {"l1": 2.0, "cosine": 3.0},
    }
    changed = {**recipe, "distillation": distillation}
    kinds = [
        {**each, "target": {**recipe["target"], "kind": kind}}
        for each in (recipe, changed)
        for kind in ("params", "macs")
    ]
    runs = [replace(base, label=str(number), recipe=each) for number, each in enumerate(kinds)]
    runs.append(replace(runs[0], label="again", seed=7))  # labels of runs do not name arms of several runs
    labels = [arm.label for arm in arms_of(runs, choose_quality("distance", runs, ()))]
    assert len(set(labels)) == 4 and not any("#" in label for label in labels)
    assert all("target.kind" in label and label.count(",") == 2 for label in labels)


def test_a_field_that_an_older_run_does_not_know_counts_as_its_default(found: dict[str, RunRecord]) -> None:
    recipe = dict(found["a"].recipe)
    old = replace(
        found["b"],
        recipe={**recipe, "gates": {k: v for k, v in recipe["gates"].items() if k != "final_values"}},
    )
    runs = [found["a"], old]
    assert len(arms_of(runs, choose_quality("distance", runs, ()))) == 1


def test_figure_2_plots_parameters_and_distance(found: dict[str, RunRecord]) -> None:
    runs = list(found.values())
    quality = choose_quality("distance", runs, ())
    (axes,) = quality_figure(arms_of(runs, quality), quality).axes
    drawn = {container.get_label(): container.lines[0] for container in axes.containers}
    assert set(drawn) == {"with STE (1 to 2 seeds)", "without STE"}
    x, y = (np.asarray(values) for values in drawn["without STE"].get_data())
    assert x == pytest.approx([(found["plain"].parameters or 0) / 1e6])
    assert y == pytest.approx([error_of(found["plain"])])
    assert len(drawn["with STE (1 to 2 seeds)"].get_xdata()) == 2
    assert "dense" in [text.get_text() for text in axes.texts]


def test_figure_3_needs_a_pair_and_shows_loss_and_gates(found: dict[str, RunRecord]) -> None:
    runs = list(found.values())
    quality = choose_quality("distance", runs, ())
    assert not straight_through_pairs(arms_of([found["a"], found["large"]], quality))
    (pair,) = straight_through_pairs(arms_of(runs, quality))
    assert [arm.fields["gates.straight_through"] for arm in pair] == ["true", "false"]
    axes = straight_through_figure(pair, quality).axes
    assert [each.get_title(loc="left")[:3] for each in axes] == ["(a)", "(b)", "(c)"]
    losses = axes[1].get_lines()
    assert len(losses) == 4  # two seeds with, one without, and the line that marks surgery
    record = found["plain"].log[0]
    assert float(losses[2].get_ydata()[0]) == pytest.approx(record["distillation"])
    counts = np.sum(list(found["plain"].stage("prune")[-1]["gates"].values()), axis=0)
    undecided = counts[2:-2].sum() / counts.sum()
    assert float(axes[2].get_lines()[2].get_ydata()[-1]) == pytest.approx(undecided)


def test_figure_3_does_without_histograms(found: dict[str, RunRecord]) -> None:
    def bare(run: RunRecord) -> RunRecord:
        log = tuple({key: value for key, value in record.items() if key != "gates"} for record in run.log)
        return replace(run, log=log)

    runs = [bare(found[name]) for name in ("a", "plain")]
    quality = choose_quality("distance", runs, ())
    (pair,) = straight_through_pairs(arms_of(runs, quality))
    assert len(straight_through_figure(pair, quality).axes) == 2


def test_many_lines_can_be_told_apart() -> None:
    looks = [colour_and_marker(index) for index in range(64)]
    assert len({*looks}) == 64
    first = looks[:8]
    assert len({colour for colour, _ in first}) == len({marker for _, marker in first}) == 8


def test_the_front_is_what_nothing_beats() -> None:
    points = [(1.0, 5.0), (2.0, 3.0), (3.0, 4.0), (4.0, 1.0)]
    assert front(points, more_is_better=False, higher_is_better=False) == [(1.0, 5.0), (2.0, 3.0), (4.0, 1.0)]
    assert front(points, more_is_better=False, higher_is_better=True) == [(1.0, 5.0)]
    assert front(points, more_is_better=True, higher_is_better=True) == [(1.0, 5.0), (3.0, 4.0), (4.0, 1.0)]
    # As large within what a target is met by: only the better one counts.
    near = [(1.000, 5.0), (1.001, 4.0)]
    assert front(near, more_is_better=False, higher_is_better=False) == [(1.001, 4.0)]
    rng = np.random.default_rng(0)
    cloud = [tuple(point) for point in rng.uniform(1, 2, (40, 2)).tolist()]
    best = front(cloud, more_is_better=False, higher_is_better=False)
    assert min(cloud, key=lambda point: point[1]) in best
    assert all(later[1] < earlier[1] for earlier, later in itertools.pairwise(best))


def test_the_pareto_front_has_a_panel_for_each_cost(found: dict[str, RunRecord]) -> None:
    runs = list(found.values())
    quality = choose_quality("distance", runs, ())
    arms = arms_of(runs, quality)
    assert len(pareto_figure(arms, quality, {}).axes) == 2
    figure = pareto_figure(arms, quality, {"plain": 2.0, "large": 1.5})
    assert len(figure.axes) == 3
    macs = [container.lines[0].get_xdata() for container in figure.axes[1].containers]
    assert sorted(float(x) for each in macs for x in each) == pytest.approx(
        sorted(
            [
                np.mean([found["a"].macs_10s, found["b"].macs_10s]) / 1e9,
                (found["plain"].macs_10s or 0) / 1e9,
                (found["large"].macs_10s or 0) / 1e9,
            ]
        )
    )


def test_quality_is_the_score_where_every_run_has_one(found: dict[str, RunRecord], tmp_path: Path) -> None:
    runs = [found["a"], found["plain"]]
    folders = [
        write_scores(
            tmp_path / run.label, str(run.directory), {"pr": 20.0 + index}, parameters=run.parameters or 0
        )
        for index, run in enumerate(runs)
    ]
    folders.append(write_scores(tmp_path / "fbank", "fbank", {"pr": 60.0}, parameters=0))
    scores = read_scores(folders, runs)
    quality = choose_quality("pr", runs, scores)
    assert quality.values == {"a": 20.0, "plain": 21.0} and not quality.higher_is_better
    assert quality.others == (("fbank", 0, 60.0),)
    assert choose_quality("auto", runs, scores).name == "distance"
    total = [replace(each, overall={"mini": 700.0}) for each in scores]
    assert choose_quality("auto", runs, total).name == "mini"
    # The embedded teacher has 1000 points by definition; of another teacher nothing is known.
    of_runs = [each for each in total if each.run is not None]
    assert choose_quality("mini", runs, of_runs).others == ()
    embedded = [replace(run, teacher="embedded") for run in runs]
    assert runs[0].dense is not None
    size = dense_parameters(runs[0].dense)
    assert choose_quality("mini", embedded, of_runs).others == (("dense", size, 1000.0),)
    assert choose_quality("auto", list(found.values()), total).name == "distance"
    with pytest.raises(SlimvoxError, match="`quality` must be one of auto, distance"):
        choose_quality("beauty", runs, scores)
