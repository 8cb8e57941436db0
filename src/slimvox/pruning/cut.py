"""Surgery at the end of stage 1: from a student with gates to the smaller encoder from which stage 2 starts."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from slimvox.comparison.distance import Distance
from slimvox.costs import parameters
from slimvox.encoder import SpeechEncoder
from slimvox.pruning.budget import Budget
from slimvox.pruning.controls import control_scores
from slimvox.pruning.distillation import Distillation
from slimvox.pruning.gates import FinalMasks, final_masks, surviving_values
from slimvox.pruning.result import RunSettings
from slimvox.pruning.settings import GateSettings
from slimvox.pruning.student import Student
from slimvox.pruning.surgery import SlicedEncoder, slice_encoder
from slimvox.pruning.trainer import Trainer
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.structures.kept_indices import KeptIndices
from slimvox.util.errors import UnusableResultError

logger = logging.getLogger("slimvox.pruning")

FAR_FROM_TARGET = 0.05
"""Difference between the expected sparsity of the gates and its target above which a warning is logged."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Result of surgery, from which stage 2 starts."""

    encoder: SpeechEncoder
    distillation: Distillation
    """Distillation loss, with the maps at the end of stage 1."""
    kept: KeptIndices
    """Kept units, in the numbering of the encoder that the run started from."""
    distance: Distance | None
    """Distance to the teacher."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        return {
            "encoder": self.encoder.state_dict(),
            "distillation": self.distillation.state_dict(),
            "anatomy": self.encoder.anatomy.to_dict(),
            "kept": self.kept.to_dict(),
            "distance": asdict(self.distance) if self.distance else None,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], trainer: Trainer) -> Cut:
        """The reverse of `state_dict`."""
        encoder = SpeechEncoder(
            EncoderAnatomy.from_dict(state["anatomy"]), trainer.teacher.dense_anatomy
        ).eval()
        encoder.load_state_dict(state["encoder"])
        distillation = trainer.distillation()
        distillation.load_state_dict(state["distillation"])
        return cls(
            encoder=encoder,
            distillation=distillation,
            kept=KeptIndices.from_dict(state["kept"], trainer.teacher.anatomy),
            distance=Distance(**state["distance"]) if state["distance"] else None,
        )


def slice_student(student: Student, settings: RunSettings) -> SlicedEncoder:
    """Slice a copy of the student to the budget, by its gates or by the scores of a control."""
    encoder, gates, budget = copy.deepcopy(student.encoder).cpu(), student.gates, settings.budget
    assert gates is not None
    log_alpha = gates.log_alpha.detach().cpu()
    if settings.control is None:
        sparsity = float(student.expected_sparsity().detach())
        gap = sparsity - budget.target_sparsity
        if abs(gap) > FAR_FROM_TARGET:
            logger.warning(
                "the gates were still far from the target: expected sparsity %.0f %%, target %.0f %%."
                " The target is met nevertheless, but %s would prune better.",
                100 * sparsity,
                100 * budget.target_sparsity,
                _advice(gap, settings.recipe.gates),
            )
        scores = log_alpha
    else:
        scores = control_scores(settings.control, encoder, gates.layout, settings.seed)
    final_values = settings.recipe.gates.final_values if settings.control is None else "one"
    chosen = final_masks(gates.layout, scores, surviving_values(log_alpha, final_values), budget)
    sliced = slice_encoder(encoder, chosen.masks)
    check_promise(sliced, chosen, budget)
    return sliced


def check_promise(sliced: SlicedEncoder, chosen: FinalMasks, budget: Budget) -> None:
    """Compare the sliced encoder with the size that its masks promised.

    Raises:
        UnusableResultError: if its cost differs or is above the target, or if its tensors are not those of its anatomy.
    """
    encoder = sliced.encoder
    cost, stored = budget.cost.of(encoder.anatomy), sum(each.numel() for each in encoder.parameters())
    if cost == chosen.cost <= budget.target and stored == parameters(encoder.anatomy):
        return
    describe = budget.cost.describe
    raise UnusableResultError(
        f"the sliced encoder has {describe(cost)} and {stored} stored parameters, but its masks promised"
        f" {describe(chosen.cost)} of at most {describe(budget.target)} and {parameters(encoder.anatomy)} stored"
        " parameters; this is a fault of slimvox: nothing was written, please report it with the recipe"
    )


def _advice(gap: float, gates: GateSettings) -> str:
    """Advice if the expected sparsity ends above or below its target."""
    longer = "a longer stage 1 (`prune.steps`), or a"
    if gates.sparsity_control == "projection":
        return f"{longer} higher `gates.learning_rate`," if gap < 0 else "a lower `gates.initial_drop`"
    if gap < 0:
        return f"{longer} higher `gates.learning_rate` or `gates.multiplier_learning_rate`,"
    # The longer the stage, the further the multipliers overshoot.
    return "a lower `gates.multiplier_learning_rate`"
