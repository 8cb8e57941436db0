"""Figures in the documentation name the recipe that they were measured with, and it is today's."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from slimvox.pruning.recipe import load_recipe

DOCS = Path(__file__).parents[1] / "docs"
STAMP = re.compile(r"recipe `([a-z]+)` \(`([0-9a-f]{8})`\) at commit `([0-9a-f]{7,})`")
"""Written by `benchmarks/speed/prune_step.py`."""
STAMPS = [
    (page.name, *found) for page in sorted(DOCS.glob("*.md")) for found in STAMP.findall(page.read_text())
]


def test_the_step_times_are_stamped() -> None:
    text = (DOCS / "results-speed.md").read_text()
    section = text[text.index("## A step of stage 1") :]
    assert STAMP.search(section)


@pytest.mark.parametrize(("page", "recipe", "digest", "commit"), STAMPS)
def test_a_measured_recipe_is_still_the_same(page: str, recipe: str, digest: str, commit: str) -> None:
    assert load_recipe(recipe).digest == digest, (
        f"docs/{page} has figures of recipe {recipe} as it was at commit {commit}: measure them again with"
        " `python benchmarks/speed/run.py`"
    )


def test_a_digest_changes_with_each_setting_and_not_with_options_that_are_off() -> None:
    recipe = load_recipe("fast")
    assert recipe.digest == load_recipe("fast").digest
    assert recipe.digest != load_recipe("default").digest
    assert recipe.digest != load_recipe("fast", {"prune.matrix_optimiser": "adamw"}).digest
    assert recipe.digest != load_recipe("fast", {"structures.conv": False}).digest
    assert recipe.digest != load_recipe("fast", {"finish.weight_decay": 0.1}).digest
    assert recipe.digest != load_recipe("fast", {"gates.sparsity_control": "lagrangian"}).digest
    by_sgd = {"gates.sparsity_control": "lagrangian", "gates.optimiser": "sgd"}
    assert (
        load_recipe("fast", by_sgd).digest
        != load_recipe("fast", {**by_sgd, "gates.optimiser": "adam"}).digest
    )
    assert recipe.digest == replace(recipe, structures={**recipe.structures, "conv": True}).digest
