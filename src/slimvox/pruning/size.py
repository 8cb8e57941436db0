"""One of the encoders of a run, which is cut from the student of stage 1, trained in its own stage 2, and written."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from slimvox.comparison.distance import Distance
from slimvox.costs import cost_kind, macs, parameters
from slimvox.encoder import SpeechEncoder
from slimvox.encoder.weights import untrained_encoder
from slimvox.pruning.budget import Budget
from slimvox.pruning.controls import control_scores, forgets_weights
from slimvox.pruning.distillation import Distillation
from slimvox.pruning.gates import FinalMasks, final_masks
from slimvox.pruning.gates.hard_concrete import typical_open_value
from slimvox.pruning.machine_speed import speed_up
from slimvox.pruning.outcome import write_outcome
from slimvox.pruning.result import PruneResult, RunSettings, read_result, write_result
from slimvox.pruning.run_directory import RunDirectory
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


class Size:
    """One of a run's encoders; most runs have only one."""

    def __init__(self, settings: RunSettings, trainer: Trainer, fingerprint: Mapping[str, Any]) -> None:
        """An encoder to be cut and finished.

        Args:
            settings: settings with the recipe, the budget and the directory of this size.
            trainer: the run's.
            fingerprint: fingerprint of this size, for its directory.
        """
        self.settings, self._trainer, self._fingerprint = settings, trainer, fingerprint
        self._cut: Cut | None = None

    @property
    def out(self) -> RunDirectory:
        """Path of the final directory."""
        return self.settings.out

    def cut(self, student: Student, log: RunDirectory) -> None:
        """Choose the final masks, do the surgery on a copy of the student, and keep the result.

        Args:
            student: student at this step of stage 1; it is not changed.
            log: the run's directory; its log up to here becomes the first part of this size's.

        Raises:
            SlimvoxError: if it cannot be written, the gates are not finite, or the sliced encoder has not the size that
                its masks promised.
        """
        trainer = self._trainer
        # Sliced in one process and sent to the others, so that all of them go on with the same encoder.
        state = trainer.processes.on_main(lambda: self._slice_and_save(student, log))
        self._cut = Cut.from_state(state, trainer)

    def _slice_and_save(self, student: Student, log: RunDirectory) -> dict[str, Any]:
        trainer = self._trainer
        sliced = _slice(student, self.settings)
        encoder = sliced.encoder
        if forgets_weights(self.settings.control):
            encoder = untrained_encoder(encoder.anatomy, encoder.dense_anatomy, seed=self.settings.seed)
        encoder = encoder.to(trainer.accelerator.device)
        state = Cut(
            encoder=encoder,
            distillation=student.distillation,
            kept=sliced.kept,
            distance=trainer.distance(encoder),
        ).state_dict()
        if not self.out.claim(self._fingerprint):
            if log.log != self.out.log and log.log.is_file():
                log.copy_log(self.out)
            self.out.save_cut(state)
        return state

    def finish(self, unfinished: int = 0) -> PruneResult:
        """Run stage 2 and write the slimvox directory; read it if it is finished already.

        Args:
            unfinished: number of sizes whose stage 2 comes after this one.
        """
        trainer, settings = self._trainer, self.settings
        result = trainer.processes.on_main(self.read)
        if result is not None:
            return result
        cut, self._cut = self._cut, None
        if cut is None:
            cut = Cut.from_state(trainer.processes.on_main(self.out.load_cut), trainer)
        student = trainer.student(cut.encoder, cut.distillation)
        if settings.recipe.finish.steps or settings.control is not None:
            trainer.train(
                "finish",
                student,
                settings,
                ahead=unfinished * settings.recipe.finish.steps,
                measurements=1 + unfinished,
            )
        encoder = student.encoder.eval().requires_grad_(False)

        def measure_and_write() -> tuple[Distance | None, float | None, dict[str, int]]:
            measured = self._measure(encoder, cut)
            write_outcome(measured, settings, trainer.accelerator.device)
            write_result(measured, settings, cut.kept, trainer.steps_text(settings))
            self.out.finish(self._fingerprint)
            return measured.distance_after_finish, measured.speed_up, measured.skipped_files

        measured_values = trainer.processes.on_main(measure_and_write)
        return self._result(encoder, cut, *measured_values)

    def read(self) -> PruneResult | None:
        """Read the result if it is finished; otherwise return None.

        Raises:
            SlimvoxError: if a file of it is damaged or gone.
        """
        return read_result(self.settings) if self.out.finished and self.out.claim(self._fingerprint) else None

    def _measure(self, encoder: SpeechEncoder, cut: Cut) -> PruneResult:
        """Measure the encoder on the device of the run."""
        settings, trainer = self.settings, self._trainer
        distance = trainer.distance(encoder)
        by_speed = cost_kind(settings.budget.cost.kind).measured
        target = settings.recipe.target
        faster = speed_up(encoder, target.seconds, target.runtime) if by_speed else None
        return self._result(encoder, cut, distance, faster, settings.audio.skips.counts)

    def _result(
        self,
        encoder: SpeechEncoder,
        cut: Cut,
        distance: Distance | None,
        faster: float | None,
        skipped: dict[str, int],
    ) -> PruneResult:
        encoder, dense = encoder.cpu(), encoder.dense_anatomy
        return PruneResult(
            directory=self.settings.out.path,
            encoder=encoder,
            parameters=parameters(encoder.anatomy),
            parameters_dense=parameters(dense),
            macs_10s=macs(encoder.anatomy),
            macs_10s_dense=macs(dense),
            distance_after_prune=cut.distance,
            distance_after_finish=distance,
            speed_up=faster,
            skipped_files=skipped,
        )


def _advice(gap: float, gates: GateSettings) -> str:
    """Advice if the expected sparsity ends above or below its target."""
    if gates.sparsity_control == "projection":
        return "higher `gates.learning_rate`" if gap < 0 else "lower `gates.initial_drop`"
    if gap < 0:
        return "higher `gates.learning_rate` or `gates.multiplier_learning_rate`"
    return "lower `gates.multiplier_learning_rate`"


def _slice(student: Student, settings: RunSettings) -> SlicedEncoder:
    """The student pruned to the budget, by its gates or the scores of a control."""
    encoder, gates, budget = copy.deepcopy(student.encoder).cpu(), student.gates, settings.budget
    assert gates is not None
    log_alpha = gates.log_alpha.detach().cpu()
    if settings.control is None:
        sparsity = float(student.expected_sparsity().detach())
        gap = sparsity - budget.target_sparsity
        if abs(gap) > FAR_FROM_TARGET:
            logger.warning(
                "the gates were still far from the target: expected sparsity %.0f %%, target %.0f %%."
                " The target is met nevertheless, but a longer stage 1 (`prune.steps`), or a %s, would prune better.",
                100 * sparsity,
                100 * budget.target_sparsity,
                _advice(gap, settings.recipe.gates),
            )
        scores = log_alpha
    else:
        scores = control_scores(settings.control, encoder, gates.layout, settings.seed)
    soft = settings.recipe.gates.final_values == "soft" and settings.control is None
    values = typical_open_value(log_alpha) if soft else torch.ones_like(log_alpha)
    chosen = final_masks(gates.layout, scores, values, budget)
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
