"""One of the encoders of a run: cut from the student of stage 1, trained in its own stage 2, and written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from slimvox.comparison.distance import Distance
from slimvox.costs import cost_kind, macs, parameters
from slimvox.encoder import SpeechEncoder
from slimvox.encoder.weights import untrained_encoder
from slimvox.pruning.controls import resets_weights
from slimvox.pruning.cut import Cut, slice_student
from slimvox.pruning.machine_speed import measured_speed_up, predicted_speed_up, table_place
from slimvox.pruning.outcome import write_outcome
from slimvox.pruning.result import PruneResult, RunSettings, read_result, write_result
from slimvox.pruning.run_directory import RunDirectory
from slimvox.pruning.student import Student
from slimvox.pruning.trainer import Trainer
from slimvox.structures.anatomy import SAMPLE_RATE_HZ
from slimvox.util.errors import UnusableResultError


class RunOutput:
    """One encoder that a run writes: cut from the student of stage 1, then trained in its own stage 2.

    Most runs have a single output; a run with `sizes` has one for each.
    """

    def __init__(self, settings: RunSettings, trainer: Trainer, fingerprint: Mapping[str, Any]) -> None:
        """An output that is not cut yet.

        Args:
            settings: settings with the recipe, the budget and the directory of this size.
            trainer: trainer of the run.
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
        sliced = slice_student(student, self.settings)
        encoder = sliced.encoder
        if resets_weights(self.settings.control):
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
        """Measure the encoder on the device of the run.

        Raises:
            UnusableResultError: if its hidden states are not finite.
        """
        settings, trainer = self.settings, self._trainer
        check_states(encoder)  # without held-out audio, the distance is not measured
        distance = trainer.distance(encoder)
        by_speed = cost_kind(settings.budget.cost.kind).measured
        faster = (
            measured_speed_up(encoder, settings.recipe.target, settings.budget.cost) if by_speed else None
        )
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
            predicted_speed_up=predicted_speed_up(encoder, self.settings.budget.cost),
            predicted_for=table_place(self.settings.budget.cost),
            skipped_files=skipped,
        )


@torch.no_grad()
def check_states(encoder: SpeechEncoder) -> None:
    """Raise `UnusableResultError` if the hidden states of a trained encoder are not finite, for a second of noise."""
    samples = min(SAMPLE_RATE_HZ, encoder.anatomy.most_samples or SAMPLE_RATE_HZ)
    noise = 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(0), device="cpu")
    states = encoder(noise.to(next(encoder.parameters()).device)).hidden_states
    if not all(bool(state.isfinite().all()) for state in states):
        raise UnusableResultError(
            "hidden states of the trained encoder are NaN or infinite, so that it was not written; start again with"
            " lower learning rates (`prune.learning_rate`, `finish.learning_rate`) or with `--precision float32`"
        )
