"""Optimisers and schedules of a stage."""

from __future__ import annotations

import torch

from slimvox.budget import Lagrangian
from slimvox.pruning.student import Student
from slimvox.recipe import GateSettings, StageSettings


def build_optimisers(
    student: Student, stage: StageSettings, gates: GateSettings
) -> dict[str, torch.optim.Optimizer]:
    """One optimiser for the weights and, in stage 1, one each for the gates and the multipliers.

    The gates do not share the weights' warm-up and decay: their rate is constant. The multipliers ascend.
    """
    optimisers: dict[str, torch.optim.Optimizer] = {
        "weights": torch.optim.AdamW(
            student.weights(), lr=stage.learning_rate, weight_decay=stage.weight_decay, fused=True
        )
    }
    if student.gates is not None and student.lagrangian is not None:
        optimisers["gates"] = torch.optim.Adam(student.gates.parameters(), lr=gates.learning_rate)
        optimisers["multipliers"] = multiplier_optimiser(student.lagrangian, gates)
    return optimisers


def multiplier_optimiser(lagrangian: Lagrangian, gates: GateSettings) -> torch.optim.Optimizer:
    """Gradient ascent for the multipliers, at a constant rate."""
    kind = torch.optim.SGD if gates.multiplier_optimiser == "sgd" else torch.optim.Adam
    return kind(lagrangian.parameters(), lr=gates.multiplier_learning_rate, maximize=True)


def learning_rate(step: int, stage: StageSettings) -> float:
    """Linear warm-up to the peak, then linear decay to 0 at the end of the stage; `step` counts from 0."""
    if step < stage.warmup_steps:
        return stage.learning_rate * (step + 1) / stage.warmup_steps
    return stage.learning_rate * (stage.steps - step) / max(1, stage.steps - stage.warmup_steps)
