"""From what the user asks for to the budget of a run."""

from __future__ import annotations

from dataclasses import replace

from slimvox.budget import Budget
from slimvox.cost import CostKind, cost
from slimvox.encoder import SpeechEncoder
from slimvox.errors import SlimvoxError
from slimvox.gates import check_reachable, gate_groups
from slimvox.recipe import Recipe
from slimvox.units import parse_amount, short_number


def aim(
    recipe: Recipe,
    encoder: SpeechEncoder,
    target_parameters: str | float | None,
    target_macs: str | float | None,
) -> tuple[Recipe, Budget]:
    """The recipe with its target as asked for, and the budget that this means for an encoder.

    Raises:
        SlimvoxError: if the target makes no sense or can't be reached.
    """
    if target_parameters is not None and target_macs is not None:
        raise SlimvoxError("give `target_parameters` or `target_macs`, not both")
    settings = recipe.target
    if target_parameters is not None or target_macs is not None:
        kind: CostKind = "params" if target_macs is None else "macs"
        name = "target_parameters" if target_macs is None else "target_macs"
        asked = parse_amount(str(target_parameters if target_macs is None else target_macs), name)
        whole = cost(encoder.dense_anatomy, kind, seconds=settings.seconds)
        keep = asked.of(whole) / whole
        if not 0 < keep < 1:
            raise SlimvoxError(
                f"`{name}` must be below what the dense encoder has, {short_number(whole)}, but is"
                f" {short_number(asked.of(whole))} instead"
            )
        settings = replace(settings, kind=kind, keep=keep)
        recipe = replace(recipe, target=settings)
    anatomy = encoder.anatomy
    budget = Budget(
        kind=settings.kind,
        target=settings.keep * cost(encoder.dense_anatomy, settings.kind, seconds=settings.seconds),
        dense_cost=cost(anatomy, settings.kind, seconds=settings.seconds),
        seconds=settings.seconds,
    )
    if budget.target >= budget.dense_cost:
        raise SlimvoxError(
            f"the target of {short_number(budget.target)} is not below what this encoder costs already,"
            f" {short_number(budget.dense_cost)}; give a smaller target"
        )
    groups = gate_groups(anatomy, recipe.structures.enabled())
    if not groups:
        raise SlimvoxError("the encoder has none of the structures that the recipe prunes; switch others on")
    check_reachable(anatomy, groups, budget.kind, target=budget.target, seconds=budget.seconds)
    return recipe, budget
