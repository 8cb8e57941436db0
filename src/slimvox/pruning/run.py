"""A whole pruning run: one stage 1, and for each size surgery, a stage 2 and an output directory."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from dataclasses import replace

from slimvox.costs import cost_kind, macs, parameters
from slimvox.measure.latency import LatencyTable, write_table
from slimvox.pruning.fingerprint import fingerprint, output_fingerprint
from slimvox.pruning.interrupts import RunInterrupted
from slimvox.pruning.result import PruneResult, RunSettings
from slimvox.pruning.run_directory import LATENCY_TABLE
from slimvox.pruning.run_output import RunOutput
from slimvox.pruning.student import Student
from slimvox.pruning.trainer import Trainer
from slimvox.util.output_paths import writing
from slimvox.util.quantities import short_number


class Run:
    """The run itself: one stage 1, then a stage 2 for each size."""

    def __init__(self, trainer: Trainer, outputs: Sequence[RunSettings]) -> None:
        """A run.

        Args:
            trainer: trains every student; its settings are those of the smallest size, with the directory of the whole
                run.
            outputs: settings of each encoder to be written, largest first; for most runs only those of the trainer.
        """
        self.trainer, self.settings = trainer, trainer.settings
        self.accelerator, self.console, self.stop = trainer.accelerator, trainer.console, trainer.stop
        self.processes, self.teacher = trainer.processes, trainer.teacher
        self.fingerprint = fingerprint(self.settings, self.accelerator)
        self.outputs = [
            RunOutput(each, trainer, {**self.fingerprint, **output_fingerprint(each)}) for each in outputs
        ]

    def execute(self) -> PruneResult:
        """Run from the start, or from the last checkpoint; read the result again if the run is finished.

        Raises:
            RunInterrupted: if a process was asked to stop.
            SlimvoxError: if the directory belongs to another run or cannot be written, or if processes differ.
        """
        self.processes.agree(self.fingerprint, "give all of them the same command, model and audio")
        with contextlib.ExitStack() as held:
            finished = self.processes.on_main(lambda: self._claim(held))
            results = tuple(output.finish() for output in self.outputs) if finished else self._stages()
            if not finished:
                self.processes.on_main(self._finish)
                for tracker in self.accelerator.trackers:
                    tracker.finish()
        self._stop_if_asked()
        return replace(results[-1], sizes=results) if self.settings.sizes else results[-1]

    def _claim(self, held: contextlib.ExitStack) -> bool:
        """Lock the directory and claim it for this run; True if the run is finished. Called in the main process."""
        out, cost = self.settings.out, self.settings.budget.cost
        held.enter_context(out.locked())
        if out.claim(self.fingerprint):
            self.console.print(
                f"{out.path} already holds this run, which is finished; nothing is repeated",
                highlight=False,
                soft_wrap=True,
            )
            return True
        if cost_kind(cost.kind).measured:
            out.save_cost(cost)
        if isinstance(cost, LatencyTable):
            with writing(out.run):
                write_table(out.run / LATENCY_TABLE, cost, self.teacher.dense_anatomy)
        self.trainer.start_clock(out)
        if self.accelerator.log_with:
            self.accelerator.init_trackers("tensorboard")
        self._print_summary()
        return False

    def _finish(self) -> None:
        """Mark the run as finished; called in the main process."""
        budget = self.trainer.budget
        if budget is not None:
            budget.save()
        self.settings.out.finish(self.fingerprint)
        if budget is not None and budget.overdue is not None:
            self.console.print(budget.overdue, highlight=False, soft_wrap=True)

    def _stages(self) -> tuple[PruneResult, ...]:
        if not self.processes.on_main(lambda: self.outputs[-1].out.is_cut):
            self._first_stage()
        results = []
        for number, output in enumerate(self.outputs, start=1):
            self._stop_if_asked()
            results.append(output.finish(unfinished=len(self.outputs) - number))
        return tuple(results)

    def _stop_if_asked(self) -> None:
        """Stop between stages if requested; everything done so far is saved."""
        if self.processes.any(self.stop.requested):
            raise RunInterrupted("stopped, with the state of the run saved; the same call resumes from there")

    def _first_stage(self) -> None:
        """Train stage 1, and cut each output when the schedule has reached its size."""
        settings, out = self.settings, self.settings.out
        student = self._first_student()
        if settings.control is not None:
            self.outputs[-1].cut(student, out)
            return

        def cut_what_is_due(before: float, after: float) -> None:
            for output in self.outputs:
                if before < output.settings.cut_step <= after:
                    output.cut(student, out)

        self.trainer.train(
            "prune",
            student,
            settings,
            after_step=cut_what_is_due,
            ahead=len(self.outputs) * settings.recipe.finish.steps,
            measurements=2 * len(self.outputs),
        )
        self.processes.on_main(out.forget_checkpoint)

    def _first_student(self) -> Student:
        encoder = copy.deepcopy(self.teacher).requires_grad_(True)
        gates = self.settings.parts.build_gates(encoder.anatomy, self.settings.recipe)
        return self.trainer.student(encoder, self.trainer.distillation(), gates)

    def _print_summary(self) -> None:
        """Print a summary of the run before it starts."""
        settings, cost = self.settings, self.settings.budget.cost
        anatomy, whole = self.teacher.anatomy, cost.of_dense(self.teacher.dense_anatomy)
        targets = ", ".join(
            f"{cost.describe(output.settings.budget.target)} ({output.settings.budget.target / whole:.1%} of dense)"
            for output in self.outputs
        )
        write = self.console.print
        write(
            f"{settings.model.name}: {anatomy.family}, {len(anatomy.layers)} layers,"
            f" {short_number(parameters(anatomy))} parameters, {short_number(macs(anatomy))} MACs for 10 s",
            highlight=False,
        )
        write(
            f"target: {targets}; audio: {len(settings.audio.training)} clips to train on and"
            f" {len(settings.audio.held_out)} held out, of {settings.audio.named} files or rows,"
            f" {settings.audio.training_seconds / 3600:.2f} h;"
            f" {self.accelerator.device.type}, {self.accelerator.mixed_precision.replace('no', 'float32')}",
            highlight=False,
        )
