"""Recipes: every shipped one, every way to override one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimvox.pruning.recipe import load_recipe, shipped_recipes, to_toml
from slimvox.pruning.settings import StageSettings
from slimvox.pruning.target import TargetRequest, parse_sizes
from slimvox.util.errors import SlimvoxError
from slimvox.util.quantities import parse_amount, short_number


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_survive_toml(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    (tmp_path / "copy.toml").write_text(to_toml(recipe))
    assert load_recipe(tmp_path / "copy.toml") == recipe


def test_paper_is_what_the_paper_says() -> None:
    recipe = load_recipe("paper")
    assert (recipe.target.kind, recipe.target.keep) == ("params", 0.28)
    assert set(recipe.pruned_structures) == {"attention", "feed_forward", "head", "qk", "vo", "intermediate"}
    assert (recipe.prune.steps, recipe.prune.learning_rate, recipe.prune.warmup_steps) == (
        50_000,
        2e-4,
        15_000,
    )
    assert (recipe.finish.steps, recipe.finish.learning_rate, recipe.finish.warmup_steps) == (
        25_000,
        1e-4,
        5_000,
    )
    assert (recipe.gates.learning_rate, recipe.gates.ramp_steps) == (0.02, 5000)
    assert (recipe.data.seconds_per_batch, recipe.data.max_seconds) == (640.0, 15.6)


@pytest.mark.parametrize(("name", "speed_up"), [("default", 2), ("fast", 4)])
def test_recipes_for_speed_have_a_target_in_time_and_prune_the_front_end(name: str, speed_up: float) -> None:
    recipe = load_recipe(name)
    assert (recipe.target.kind, 1 / recipe.target.keep) == ("latency", speed_up)
    assert set(recipe.pruned_structures) > {"conv", "attention", "feed_forward", "head", "qk", "vo"}
    assert replace(recipe, name="default", target=load_recipe("default").target) == load_recipe("default")


def test_the_demos_recipe_does_not_depend_on_the_machine() -> None:
    assert load_recipe("quick").target.kind == "params"


def test_fields_are_overridden_by_text_or_mapping() -> None:
    texts = ["prune.steps=7", "structures.conv=false", "target.kind=macs", "prune.learning_rate=3e-4"]
    mapping = {
        "prune.steps": 7,
        "structures.conv": False,
        "target.kind": "macs",
        "prune.learning_rate": 3e-4,
    }
    recipe = load_recipe("quick", texts)
    assert recipe == load_recipe("quick", mapping)
    assert (recipe.prune.steps, recipe.structures["conv"], recipe.target.kind) == (7, False, "macs")


def test_a_recipe_is_taken_as_it_is_and_a_single_override_as_one() -> None:
    recipe = load_recipe("quick", ["prune.steps=70"])
    assert load_recipe(recipe) == recipe
    assert load_recipe(recipe, "finish.steps=60") == load_recipe(
        "quick", ["prune.steps=70", "finish.steps=60"]
    )


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("x" * 5000, (), "there is no recipe 'xxx"),
        ("quick", {1: 2}, "the keys of `overrides` must be names of fields, .* but one is 1"),
        ("quick", [1], "must read section.field=value, but is 1 instead"),
        ("quick", 1, "`overrides` must be a list of texts .* but is 1 instead"),
    ],
)
def test_names_and_overrides_of_other_types_are_explained(name: str, overrides: Any, message: str) -> None:
    with pytest.raises(SlimvoxError, match=message):
        load_recipe(name, overrides)


@pytest.mark.parametrize(
    ("overrides", "warmup"),
    [
        ("prune.steps=1000", 300),
        ("prune.steps=20000", 15_000),
        (["prune.steps=1000", "prune.warmup_steps=20"], 20),
        ({"prune": {"steps": 1000, "learning_rate": 1e-3, "warmup_steps": 15}}, 15),
    ],
)
def test_a_warm_up_that_does_not_fit_shrinks_with_its_stage(
    overrides: Any, warmup: int, tmp_path: Path
) -> None:
    recipe = load_recipe("default", overrides)
    assert (recipe.prune.warmup_steps, recipe.finish.warmup_steps) == (warmup, 5000)
    if overrides == "prune.steps=1000":
        (tmp_path / "mine.toml").write_text('extends = "default"\n[prune]\nsteps = 1000\n')
        assert load_recipe(tmp_path / "mine.toml").prune == recipe.prune


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("prune.stepz=1", "there is no field `prune.stepz`; known fields: steps"),
        ("soup=1", "there is no field `soup`"),
        ("prune=1", "`prune` must be a table"),
        ("prune.steps.deep=1", "there is no field `prune.steps.deep`"),
        ("prune.steps=many", "`prune.steps` must be a whole number"),
        ("prune.steps=1.5", "`prune.steps` must be a whole number"),
        ("prune.steps=0", "`prune.steps` must be at least 1"),
        ("target.keep=0", "`target.keep` must be above 0 and below 1"),
        ("target.seconds=1e9", "`target.seconds` must be at most 3600"),
        ("target.kind='seconds'", "`target.kind` must be one of params, macs"),
        ("structures.conv=1", "`structures.conv` must be true or false"),
        ("data.max_seconds=0.1", "`data.max_seconds` must be at least data.min_seconds"),
        ("gates.final_values=hard", "must be one of soft, one"),
        ("gates.optimiser=adamw", "`gates.optimiser` must be one of adam, sgd"),
        ("gates.optimiser=sgd", "`gates.optimiser` must be adam for gates.sparsity_control=projection"),
        ("finish.teacher_forcing=1.5", "`finish.teacher_forcing` must be between 0 and 1"),
        ("prune.matrix_rate_factor=0", "`prune.matrix_rate_factor` must be above 0"),
        ("prune.matrix_optimiser=sgd", "`prune.matrix_optimiser` must be one of adamw, muon"),
        ("nonsense", "section.field=value"),
    ],
)
def test_bad_overrides_are_explained(override: str, message: str) -> None:
    with pytest.raises(SlimvoxError) as caught:
        load_recipe("quick", [override])
    assert message in str(caught.value)


def test_several_problems_are_named_at_once() -> None:
    with pytest.raises(SlimvoxError, match=r"target\.keep.*prune\.learning_rate"):
        load_recipe("quick", ["target.keep=2.0", "prune.learning_rate=-1"])


def test_the_teachers_share_falls_to_nothing_halfway() -> None:
    stage = StageSettings(steps=100, learning_rate=1e-3, teacher_forcing=0.8, teacher_forcing_until=0.5)
    assert [stage.forced(step) for step in (0, 25, 49, 50, 99)] == pytest.approx([0.8, 0.4, 0.016, 0, 0])
    assert StageSettings(steps=100, learning_rate=1e-3).forced(0) == 0
    whole = StageSettings(steps=100, learning_rate=1e-3, teacher_forcing=1.0, teacher_forcing_until=0.0)
    assert whole.forced(0) == 0


@given(steps=st.integers(1, 400))
def test_limited_recipes_have_the_steps_asked_for(steps: int) -> None:
    recipe = load_recipe("quick")
    limited = recipe.limited_to(steps)
    total = recipe.prune.steps + recipe.finish.steps
    assert limited.prune.steps + limited.finish.steps == min(steps, total)
    assert limited.prune.steps >= 1
    assert limited.gates.ramp_steps <= limited.prune.steps
    assert limited.prune.warmup_steps <= limited.prune.steps


@pytest.mark.parametrize(
    ("text", "of_100m"),
    [
        ("28%", 28e6),
        ("0.28", 28e6),
        ("26.5M", 26.5e6),
        ("15G", 15e9),
        ("900k", 9e5),
        ("26500000", 26.5e6),
        ("1e-05", 1e3),
    ],
)
def test_amounts(text: str, of_100m: float) -> None:
    assert parse_amount(text, "target").of(100e6) == pytest.approx(of_100m)


def test_one_size_is_a_list_of_one() -> None:
    assert parse_sizes(0.5) == parse_sizes("50%") == parse_sizes([0.5]) == (0.5,)


@pytest.mark.parametrize(("macs", "seconds"), [("60M", 10), (6e7, 10), ("60%", 15), (0.6, 15)])
def test_numbers_of_macs_are_for_ten_seconds(macs: str | float, seconds: float) -> None:
    """Shares are those of the recipe's clip."""
    assert TargetRequest(macs=macs).settings(load_recipe("whisper").target).seconds == seconds


@pytest.mark.parametrize("text", ["", "lots", "-5%", "5%%", "0", "1T", "nan"])
def test_bad_amounts(text: str) -> None:
    with pytest.raises(SlimvoxError, match="a share such as 28%"):
        parse_amount(text, "target")


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (999, "999"), (1000, "1.00k"), (94_381_936, "94.4M"), (7.4e10, "74.0G")]
)
def test_short_numbers(number: float, text: str) -> None:
    assert short_number(number) == text
