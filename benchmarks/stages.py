"""Stage 1 of a recipe with random weights, for measuring steps: neither time nor memory depends on the weights."""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from slimvox.costs import Parameters
from slimvox.encoder import SpeechEncoder
from slimvox.pruning.accelerator import Precision, build_accelerator
from slimvox.pruning.budget import Budget, Lagrangian, SparsitySchedule
from slimvox.pruning.parts import PruningParts
from slimvox.pruning.recipe import load_recipe
from slimvox.pruning.stage import Stage
from slimvox.pruning.student import Student
from slimvox.structures.anatomy import EncoderAnatomy

KEEP = 0.28


def make_stage(
    anatomy: EncoderAnatomy, recipe_name: str, precision: Precision = "auto", device: str = "cpu"
) -> Stage:
    """Stage 1 of a shipped recipe, to 28 % of the parameters."""
    torch.manual_seed(0)
    recipe, parts, cost = load_recipe(recipe_name), PruningParts(), Parameters()
    accelerator = build_accelerator(device=device, precision=precision, log_directory=Path("."))
    teacher, dense = SpeechEncoder(anatomy).requires_grad_(False), cost.of(anatomy)
    student = Student(
        copy.deepcopy(teacher).requires_grad_(True),
        parts.build_distillation(anatomy, recipe),
        gates=parts.build_gates(anatomy, recipe),
        budget=Budget(cost=cost, target=KEEP * dense, dense_cost=dense),
        lagrangian=Lagrangian() if recipe.gates.sparsity_control == "lagrangian" else None,
    )
    return Stage(
        name="prune",
        student=student.to(accelerator.device),
        teacher=teacher.to(accelerator.device),
        settings=recipe.prune,
        gate_settings=recipe.gates,
        schedule=SparsitySchedule(
            sparsities=(1 - KEEP,), ramp_steps=recipe.gates.ramp_steps, steps=recipe.prune.steps
        ),
        seed=0,
        accelerator=accelerator,
    )
