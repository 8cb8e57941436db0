"""Resources shared by all stages of a run (teacher, audio, device), and the training and saving of a stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from accelerate import Accelerator
from rich.console import Console
from torch import Tensor

from slimvox.comparison.distance import Distance, hidden_state_distance
from slimvox.encoder import SpeechEncoder
from slimvox.pruning.budget import Lagrangian
from slimvox.pruning.callbacks import Callback, TrainingState, as_it_is
from slimvox.pruning.distillation import Distillation
from slimvox.pruning.gates import Gates
from slimvox.pruning.interrupts import StopRequests
from slimvox.pruning.memory import Recompute, plan_steps
from slimvox.pruning.micro_batches import Division, MicroBatches
from slimvox.pruning.processes import Processes
from slimvox.pruning.progress import JsonLog, StageProgress
from slimvox.pruning.result import RunSettings
from slimvox.pruning.run_directory import RunDirectory
from slimvox.pruning.stage import Stage
from slimvox.pruning.student import Student
from slimvox.pruning.time_budget import TimeBudget, TimeLimit
from slimvox.pruning.timeline import Timeline


class Trainer:
    """Builds students and trains them."""

    def __init__(
        self,
        settings: RunSettings,
        accelerator: Accelerator,
        console: Console,
        checkpoint_seconds: float,
        stop: StopRequests,
        micro_batch_seconds: float | None = None,
        recompute: Recompute = "auto",
        limit: TimeLimit | None = None,
    ) -> None:
        """A trainer.

        Args:
            settings: settings of the run.
            accelerator: device and processes.
            console: where progress is shown.
            checkpoint_seconds: time between checkpoints.
            stop: called after every step, and between stages; true to stop.
            micro_batch_seconds: audio in a forward pass; chosen by the free memory if not given.
            recompute: use of activation checkpointing.
            limit: time in which the run ends; None for as long as the recipe takes.
        """
        self.accelerator, self.console, self.stop = accelerator, console, stop
        self.processes = Processes(accelerator)
        self.main = self.processes.main
        self.teacher = settings.model.encoder.to(accelerator.device).requires_grad_(False)
        self.settings, self._checkpoint_seconds = settings, checkpoint_seconds
        self._micro_batch_seconds, self._recompute = micro_batch_seconds, recompute
        self._limit = limit
        self.budget: TimeBudget | None = None
        """Set once the run's directory is its own, in the main process."""
        self._held_out: Iterable[Tensor] = settings.audio.held_out_waveforms() if self.main else ()

    def student(
        self, encoder: SpeechEncoder, distillation: Distillation, gates: Gates | None = None
    ) -> Student:
        """A student ready to be trained, on the device of the run."""
        recipe = self.settings.recipe
        student = Student(
            encoder,
            distillation,
            gates=gates,
            budget=None if gates is None else self.settings.budget,
            lagrangian=Lagrangian(recipe.gates.initial_quadratic_multiplier)
            if gates is not None and recipe.gates.sparsity_control == "lagrangian"
            else None,
            masked_share=recipe.distillation.masked_share,
        )
        return student.to(self.accelerator.device)

    def distillation(self) -> Distillation:
        """Distillation loss of the recipe, with untrained maps."""
        return self.settings.parts.build_distillation(self.teacher.anatomy, self.settings.recipe)

    def distance(self, encoder: SpeechEncoder) -> Distance | None:
        """Distance of an encoder to the teacher; None if no audio is held out, and in all processes except the main
        one.
        """
        return hidden_state_distance(self.teacher, encoder, self._held_out) if self.main else None

    def train(
        self,
        name: str,
        student: Student,
        settings: RunSettings,
        *,
        after_step: Callable[[float, float], None] | None = None,
        ahead: int = 0,
        measurements: int = 1,
    ) -> None:
        """Train a student for a whole stage, from the last checkpoint of that stage if there is one.

        Args:
            name: `prune` or `finish`.
            student: changed in place.
            settings: settings of the run; log and checkpoints go to its directory.
            after_step: called with the positions in the schedule before and after each step, before a checkpoint of it
                is written.
            ahead: number of steps in the recipe of the stages after this one.
            measurements: number of times that the distance to the teacher is yet to be measured.

        Raises:
            RunInterrupted: on Ctrl-C, after a checkpoint.
            SlimvoxError: if the gradients are no longer finite, or the disk is full.
        """
        recipe, out = settings.recipe, settings.out
        stage_settings = recipe.prune if name == "prune" else recipe.finish
        if settings.control is not None:
            # A control is distilled for as many steps as both stages have.
            stage_settings = replace(stage_settings, steps=recipe.prune.steps + recipe.finish.steps)
        title = stage_title(name, settings)
        budget = self.budget
        stage = Stage(
            name=name,
            student=student,
            teacher=self.teacher,
            settings=stage_settings,
            gate_settings=recipe.gates,
            schedule=settings.schedule if name == "prune" else None,
            seed=settings.seed,
            accelerator=self.accelerator,
            title=title,
            timeline=self.processes.on_main(lambda: self.timeline(title, stage_settings.steps)),
        )
        checkpoint = self.processes.on_main(out.load_checkpoint)
        if checkpoint is not None and checkpoint["stage"] == name:
            stage.load_state_dict(checkpoint)
            if self.main:
                self.console.print(f"resuming from step {stage.step} of stage {stage.title}", highlight=False)
        log = JsonLog(out.log, enabled=self.main)
        self.processes.on_main(lambda: log.forget_after(name, stage.step))
        self._divide(stage, settings)
        batches = settings.audio.batches(
            stage=name,
            start=stage.step,
            process=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
        )
        progress = StageProgress(
            self.console,
            f"{1 if name == 'prune' else 2}/2 {stage.title:6}",
            steps=stage.steps,
            start=stage.step,
            enabled=self.main,
        )

        def save(state: dict[str, Any]) -> None:
            out.save_checkpoint(state)
            if budget is not None:
                budget.save()

        with batches, progress:
            stage.run(
                batches,
                progress=progress,
                log=log,
                stop=self.stop,
                save=lambda state: self.processes.on_main(lambda: save(state)),
                save_every_seconds=self._checkpoint_seconds,
                log_every=max(1, stage.steps // 1000),
                after_step=after_step,
                report=self._report_to(stage, settings.parts.callbacks, log),
                look=self._look(title, student, stage_settings.steps, ahead, measurements),
            )
        if self.main and batches.waits.share >= 0.005:
            self.console.print(
                f"stage {stage.title} waited for audio {batches.waits.share:.1%} of its time", highlight=False
            )
        self.accelerator.free_memory()

    def _divide(self, stage: Stage, settings: RunSettings) -> None:
        """Choose and save the division of a stage's steps, and print the expected memory and speed."""
        data, out = settings.recipe.data, settings.out
        if stage.step >= stage.steps:
            return
        plan = plan_steps(
            stage,
            clip_seconds=max(
                data.pad_to_seconds, min(data.max_seconds, max(data.seconds_per_batch, data.min_seconds))
            ),
            micro_batch_seconds=self._micro_batch_seconds,
            recompute=self._recompute,
            earlier=self.processes.on_main(lambda: out.load_division(stage.name)),
        )

        def remember(division: Division) -> None:
            self.processes.on_main(lambda: out.save_division(stage.name, division))

        remember(plan.division)
        stage.micro_batches = MicroBatches(
            plan.division, may_recompute=self._recompute == "auto", remember=remember
        )
        if self.main:
            steps = stage.steps - stage.step
            self.console.print(
                f"stage {stage.title}: {plan.describe(data.seconds_per_batch, steps)}",
                highlight=False,
                soft_wrap=True,
                markup=False,
            )

    def _look(
        self, title: str, student: Student, steps: int, ahead: int, measurements: int
    ) -> Callable[[int, Timeline], Timeline | None] | None:
        """Decides after each step of a run of limited time how many steps the stage has; the same in all processes."""
        if self._limit is None:
            return None
        limit, pace, announced = self._limit, None, 0
        if self.budget is not None:
            pace = self.budget.pace(
                title, ahead=ahead, measurements=measurements, measure=lambda: self.distance(student.encoder)
            )

        def decide(step: int, timeline: Timeline) -> Timeline | None:
            nonlocal announced
            decided = None if pace is None else pace(step, timeline)
            if decided is not None and abs(decided.steps - announced) > 0.1 * announced:
                announced = decided.steps
                self.console.print(
                    f"{decided.steps:,} steps of stage {title} instead of {steps:,}, to end in {limit.hours:g} h",
                    highlight=False,
                )
            return decided

        return lambda step, timeline: self.processes.on_main(lambda: decide(step, timeline))

    def start_clock(self, out: RunDirectory) -> None:
        """Read what earlier calls of the run used of its time, and decided; in the main process."""
        self.budget = TimeBudget(self._limit, out)

    def timeline(self, title: str, steps: int) -> Timeline:
        """The steps of a stage as they were decided, or those of the recipe; in the main process."""
        return Timeline(steps) if self.budget is None else self.budget.timeline(title, steps)

    def steps_text(self, settings: RunSettings) -> str:
        """Steps of stage 1 up to the cut, and of stage 2, as `600 + 300`; in the main process."""
        recipe = settings.recipe
        if settings.control is not None:
            return f"0 + {self.timeline('finish', recipe.prune.steps + recipe.finish.steps).steps}"
        first = self.timeline("prune", recipe.prune.steps).step_at(settings.cut_step)
        second = self.timeline(stage_title("finish", settings), recipe.finish.steps).steps
        return f"{first} + {second}"

    def _report_to(
        self, stage: Stage, callbacks: Sequence[Callback], log: JsonLog
    ) -> Callable[[Mapping[str, float]], None] | None:
        """Calls the callbacks that are due after a step, in the main process, and logs what they return."""
        if not callbacks:
            return None

        def call(values: Mapping[str, float]) -> None:
            due = [
                each
                for each in callbacks
                if stage.step % max(1, each.every) == 0 or stage.step == stage.steps
            ]
            state = TrainingState(
                stage=stage.name,
                step=stage.step,
                steps=stage.steps,
                values=values,
                student=stage.student,
                slice=lambda encoder, student: as_it_is(
                    encoder, student, stage.last_target_sparsity, self.settings.recipe.gates.final_values
                ),
                distance_of=self.distance,
            )
            for callback in due:
                figures = callback.on_step(state)
                if figures:
                    log.write({"stage": stage.name, "step": stage.step, "callback": dict(figures)})

        return lambda values: self.processes.on_main(lambda: call(values))


def stage_title(name: str, settings: RunSettings) -> str:
    """Name of a stage, with the size that it finishes where the run gives several."""
    return name if name == "prune" or not settings.sizes else f"{name} {settings.out.path.name}"
