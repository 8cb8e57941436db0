"""Optimisers and schedules of a stage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from slimvox.pruning.budget import Lagrangian
from slimvox.pruning.muon import Muon
from slimvox.pruning.settings import GateSettings, StageSettings
from slimvox.pruning.student import Student

MATRICES, WEIGHTS = OF_WEIGHTS = ("matrices", "weights")
"""Names of the optimisers whose rates follow the stage's schedule; the others train gates and multipliers."""

_KINDS: Mapping[str, type[torch.optim.Adam | torch.optim.SGD]] = {
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
}


def build_optimisers(
    student: Student,
    stage: StageSettings,
    gates: GateSettings,
    *,
    matrix_dtype: torch.dtype = torch.float32,
) -> dict[str, torch.optim.Optimizer]:
    """One optimiser for the weights, one for the matrices among them if Muon trains them, and, in stage 1, one for the
    gates and one for the multipliers, if there are any.

    The gates do not share the weights' warm-up and decay: their rate is constant. The multipliers ascend. Muon
    computes in `matrix_dtype`.
    """
    optimisers: dict[str, torch.optim.Optimizer] = {}
    weights = student.weights()
    if stage.matrix_optimiser == "muon":
        matrices = matrices_of(student)
        weights = [weight for weight in weights if not any(weight is each for each in matrices)]
        if matrices:
            optimisers[MATRICES] = Muon(
                matrices,
                lr=stage.learning_rate * stage.matrix_rate_factor,
                weight_decay=stage.weight_decay,
                dtype=matrix_dtype,
            )
    optimisers[WEIGHTS] = torch.optim.AdamW(
        weights, lr=stage.learning_rate, weight_decay=stage.weight_decay, fused=True
    )
    if student.gates is not None:
        optimisers["gates"] = _KINDS[gates.optimiser](student.gates.parameters(), lr=gates.learning_rate)
    if student.lagrangian is not None:
        optimisers["multipliers"] = multiplier_optimiser(student.lagrangian, gates)
    return optimisers


def matrices_of(student: Student) -> list[nn.Parameter]:
    """The weights of all linear maps that are not empty."""
    maps = (
        module
        for part in (student.encoder, student.distillation)
        for module in part.modules()
        if isinstance(module, nn.Linear)
    )
    weights = (each.weight for each in maps)
    return [weight for weight in weights if isinstance(weight, nn.Parameter) and weight.numel()]


def schedule_rates(
    optimisers: Mapping[str, torch.optim.Optimizer],
    step: float,
    stage: StageSettings,
    following: float | None = None,
) -> float:
    """Set the rates of the weights' optimisers for a step; returns the step's share of the peak (see `rate_share`)."""
    share = rate_share(step, stage, following)
    peaks = {WEIGHTS: stage.learning_rate, MATRICES: stage.learning_rate * stage.matrix_rate_factor}
    for name, peak in peaks.items():
        for group in optimisers[name].param_groups if name in optimisers else ():
            group["lr"] = share * peak
    return share


def multiplier_optimiser(lagrangian: Lagrangian, gates: GateSettings) -> torch.optim.Optimizer:
    """Gradient ascent for the multipliers, at a constant rate."""
    kind = _KINDS[gates.multiplier_optimiser]
    return kind(lagrangian.parameters(), lr=gates.multiplier_learning_rate, maximize=True)


def rate_share(step: float, stage: StageSettings, following: float | None = None) -> float:
    """Linear warm-up to 1, then linear decay to 0 at the end of the stage.

    Args:
        step: position in the schedule before the step, counted from 0.
        stage: the schedule.
        following: position after the step; one further if not given.
    """
    if step < stage.warmup_steps:
        return min(1.0, (step + 1 if following is None else following) / stage.warmup_steps)
    return (stage.steps - step) / max(1, stage.steps - stage.warmup_steps)


class Snapshot:
    """Copy of the parameters and the state of some optimisers, which can be restored."""

    def __init__(self, optimisers: Iterable[torch.optim.Optimizer]) -> None:
        self._optimisers = [(each, _copied(each.state)) for each in optimisers]
        self._parameters = [
            (parameter, parameter.detach().clone())
            for optimiser, _ in self._optimisers
            for group in optimiser.param_groups
            for parameter in group["params"]
        ]

    @torch.no_grad()
    def restore(self) -> None:
        """Restore parameters and states; possible only once, since the copies themselves are used."""
        for parameter, value in self._parameters:
            parameter.copy_(value)
        for optimiser, state in self._optimisers:
            optimiser.state = state


def _copied(state: Mapping[Any, Mapping[str, Any]]) -> defaultdict[Any, dict[str, Any]]:
    copied: defaultdict[Any, dict[str, Any]] = defaultdict(dict)
    for parameter, values in state.items():
        copied[parameter] = {
            name: value.clone() if isinstance(value, torch.Tensor) else value
            for name, value in values.items()
        }
    return copied
