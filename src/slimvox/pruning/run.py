"""A whole pruning run: one stage 1, and for each size surgery, a stage 2 and the directory that comes out of it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console

from slimvox.audio import AudioInput, as_sources, source_name
from slimvox.checkpoint import load_model
from slimvox.costs import cost_kind, macs, parameters
from slimvox.pruning.accelerator import Precision, build_accelerator, own_accelerate_state
from slimvox.pruning.budget import SparsitySchedule
from slimvox.pruning.controls import Control
from slimvox.pruning.data import gather_audio
from slimvox.pruning.fingerprint import fingerprint, of_size
from slimvox.pruning.gates import Gates
from slimvox.pruning.interrupts import RunInterrupted, StopRequests
from slimvox.pruning.machine_speed import prepare_cost
from slimvox.pruning.processes import Processes
from slimvox.pruning.recipe import load_recipe
from slimvox.pruning.result import PruneResult, RunSettings
from slimvox.pruning.run_directory import RunDirectory
from slimvox.pruning.size import Size
from slimvox.pruning.student import Student
from slimvox.pruning.target import WantedTarget, aim
from slimvox.pruning.trainer import Trainer
from slimvox.util.devices import Device
from slimvox.util.errors import SlimvoxError
from slimvox.util.quantities import short_number
from slimvox.util.validation import Count, SecondsOrZero, Seed, checked_arguments


@checked_arguments
@torch.inference_mode(False)
@torch.enable_grad()
def prune(
    model: str | Path,
    audio: AudioInput | Sequence[AudioInput],
    out: str | Path,
    *,
    recipe: str | Path | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    target_parameters: str | float | None = None,
    target_macs: str | float | None = None,
    target_speed: str | float | None = None,
    sizes: str | Sequence[str | float] | None = None,
    held_out: Sequence[AudioInput] = (),
    device: Device = "auto",
    precision: Precision = "auto",
    max_steps: Count | None = None,
    seed: Seed = 0,
    control: Control | None = None,
    checkpoint_seconds: SecondsOrZero = 300.0,
    console: Console | None = None,
) -> PruneResult:
    """Prune a speech encoder on unlabelled audio; the command `slimvox prune` as a function.

    The same call goes on where an interrupted one stopped, and reads the result again where it is finished.

    Args:
        model: `embedded`, a directory or a model id on the hub; a directory that slimvox wrote can be pruned further.
        audio: files, folders, lists, manifests or Hugging Face data sets, as `slimvox.audio.find_audio` takes them.
        out: directory to write, new or empty.
        recipe: `default`, `paper`, `fast`, `quick` or the path of a TOML file; if none is given, `quick` for the
            embedded teacher, else `default`.
        overrides: fields of the recipe to change, such as `["prune.steps=1000"]`.
        target_parameters: what is kept, as a share of the dense encoder ("28%", 0.28) or a number ("26.5M").
        target_macs: the same for multiply-accumulates (of a clip of `target.seconds`).
        target_speed: how many times faster than the dense encoder ("4x"), float32, on the device of the run with its
            number of threads; predicted from a table that the run first measures.
        sizes: several encoders from one run, in place of a target: what each keeps of the dense encoder ("50%,28%,15%",
            [0.5, 0.28, 0.15]), counted as the recipe counts (`target.kind`). Stage 1 runs once and passes each size on
            its way to the smallest; each then has a stage 2 and a directory of its own, such as `out/keep-28`.
        held_out: audio to measure the distance to the teacher on; otherwise a part of `audio` is put aside.
        device: `auto`, `cpu`, `cuda` or `mps`.
        precision: `auto`, `float32` or `bf16` (autocast; weights and gates stay float32).
        max_steps: squeeze both stages into this many steps, with each size's stage 2 as long as for one size; the
            target is met all the same.
        seed: of everything random.
        control: skip learning what to prune: `random`, `magnitude`, `top-layers` or `thin` (see
            `slimvox.pruning.controls`).
        checkpoint_seconds: time from checkpoint to checkpoint.
        console: where progress is shown; None shows nothing.

    Returns:
        What the run gave; with `sizes` this is the smallest, and its field `sizes` has them all, largest first.

    Raises:
        SlimvoxError: for anything the caller can mend.
        RunInterrupted: on Ctrl-C or SIGTERM, after a checkpoint; only in the main thread, which takes over these
            signals while the run lasts.
    """
    _check_request(control, sizes)
    sources = as_sources(audio)
    directory = RunDirectory(path=Path(out).expanduser())
    wanted = WantedTarget(parameters=target_parameters, macs=target_macs, speed=target_speed, sizes=sizes)
    name = recipe or ("quick" if str(model) == "embedded" else "default")
    chosen = load_recipe(name, overrides)
    if max_steps is not None:
        chosen = chosen.limited_to(max_steps)
    console = console or Console(quiet=True)
    with own_accelerate_state():
        accelerator = build_accelerator(device=device, precision=precision, log_directory=directory.run)
        processes = Processes(accelerator)
        processes.on_main(directory.refuse_if_taken)
        loaded = processes.together(lambda: load_model(model))
        earlier_kept = processes.together(loaded.kept_indices)
        aims = aim(
            chosen,
            loaded.encoder,
            wanted,
            lambda kind, seconds: prepare_cost(
                kind, seconds, loaded.encoder.dense_anatomy, directory, accelerator, console
            ),
        )
        recipe_of_smallest, budget = aims[-1]
        settings = RunSettings(
            model=loaded,
            earlier_kept=earlier_kept,
            recipe=recipe_of_smallest,
            budget=budget,
            audio=processes.together(lambda: gather_audio(sources, chosen.data, seed, held_out)),
            audio_names=tuple(source_name(source) for source in sources),
            out=directory,
            seed=seed,
            control=control,
            sizes=() if sizes is None else tuple(each.target.keep for each, _ in aims),
            schedule=SparsitySchedule(
                sparsities=tuple(each.target_sparsity for _, each in aims),
                ramp_steps=chosen.gates.ramp_steps,
                steps=chosen.prune.steps,
                shape=chosen.gates.ramp_shape,
            ),
            cut_step=chosen.prune.steps,
        )
        each_size: tuple[RunSettings, ...] = (settings,)
        if sizes is not None:
            each_size = tuple(
                replace(
                    settings,
                    recipe=its_recipe,
                    budget=its_budget,
                    out=directory.of_size(its_recipe.target.keep),
                    cut_step=step,
                )
                for (its_recipe, its_budget), step in zip(aims, settings.schedule.ends, strict=True)
            )
        with StopRequests(patient=processes.count > 1) as stop:
            return _Run(settings, each_size, accelerator, console, checkpoint_seconds, stop).execute()


def _check_request(control: Control | None, sizes: object) -> None:
    """Raise `SlimvoxError` for arguments that make no sense together."""
    if sizes is not None and control is not None:
        raise SlimvoxError(
            "`sizes` come from gates that are learned, and a `control` learns none: give a target instead"
        )


class _Run:
    """The run itself: one stage 1, then a stage 2 for each size."""

    def __init__(
        self,
        settings: RunSettings,
        sizes: Sequence[RunSettings],
        accelerator: Accelerator,
        console: Console,
        checkpoint_seconds: float,
        stop: StopRequests,
    ) -> None:
        """A run.

        Args:
            settings: of the smallest size, with the directory of the whole run.
            sizes: of each size, largest first; of most runs just `settings`.
            accelerator: device and processes.
            console: where progress is shown.
            checkpoint_seconds: time from checkpoint to checkpoint.
            stop: asked after every step, and between stages.
        """
        self.settings, self.accelerator, self.console = settings, accelerator, console
        self.processes, self.stop = Processes(accelerator), stop
        self.main = self.processes.main
        self.trainer = Trainer(settings, accelerator, console, checkpoint_seconds, stop)
        self.teacher = self.trainer.teacher
        self.fingerprint = fingerprint(settings, accelerator)
        self.sizes = [Size(size, self.trainer, {**self.fingerprint, **of_size(size)}) for size in sizes]

    def execute(self) -> PruneResult:
        """Run from the start, or from the last checkpoint; read the result again if the run is finished.

        Raises:
            RunInterrupted: if a process was asked to stop.
            SlimvoxError: if the directory is another run's, or can't be written; if processes differ.
        """
        out = self.settings.out
        self.processes.agree(self.fingerprint, "give all of them the same command, model and audio")
        with contextlib.ExitStack() as held:
            finished = self.processes.on_main(lambda: self._claim(held))
            results = tuple(size.finish() for size in self.sizes) if finished else self._stages()
            if not finished:
                self.processes.on_main(lambda: out.finish(self.fingerprint))
                for tracker in self.accelerator.trackers:
                    tracker.finish()
        self._stop_if_asked()
        return replace(results[-1], sizes=results) if self.settings.sizes else results[-1]

    def _claim(self, held: contextlib.ExitStack) -> bool:
        """Lock the directory and make it this run's; whether the run is finished. Called in the main process."""
        out, cost = self.settings.out, self.settings.budget.cost
        held.enter_context(out.locked())
        if out.claim(self.fingerprint):
            self.console.print(
                f"{out.path} already holds this run, finished; nothing is done again",
                highlight=False,
                soft_wrap=True,
            )
            return True
        if cost_kind(cost.kind).measured:
            out.save_cost(cost)
        if self.accelerator.log_with:
            self.accelerator.init_trackers("tensorboard")
        self._introduce()
        return False

    def _stages(self) -> tuple[PruneResult, ...]:
        if not self.processes.on_main(lambda: self.sizes[-1].out.is_cut):
            self._first_stage()
        results = []
        for size in self.sizes:
            self._stop_if_asked()
            results.append(size.finish())
        return tuple(results)

    def _stop_if_asked(self) -> None:
        """Between stages, where everything that was done is saved."""
        if self.processes.any(self.stop.requested):
            raise RunInterrupted("stopped, with the state of the run saved; the same call goes on from there")

    def _first_stage(self) -> None:
        """Learn what to prune, and cut each size when its turn has come."""
        settings, out = self.settings, self.settings.out
        student = self._first_student()
        if settings.control is not None:
            self.sizes[-1].cut(student, out)
            return

        def cut_what_is_due(step: int) -> None:
            for size in self.sizes:
                if size.settings.cut_step == step:
                    size.cut(student, out)

        self.trainer.train("prune", student, settings, after_step=cut_what_is_due)
        self.processes.on_main(out.forget_checkpoint)

    def _first_student(self) -> Student:
        encoder = copy.deepcopy(self.teacher).requires_grad_(True)
        recipe = self.settings.recipe
        gates = Gates(
            encoder.anatomy,
            recipe.pruned_structures,
            initial_drop=recipe.gates.initial_drop,
            initial_drops=recipe.gates.initial_drops,
            straight_through=recipe.gates.straight_through,
        )
        return self.trainer.student(encoder, self.trainer.distillation(), gates)

    def _introduce(self) -> None:
        """Say what is about to happen."""
        settings, cost = self.settings, self.settings.budget.cost
        anatomy, whole = self.teacher.anatomy, cost.of(self.teacher.dense_anatomy)
        targets = ", ".join(
            f"{cost.describe(size.settings.budget.target)} ({size.settings.budget.target / whole:.1%} of dense)"
            for size in self.sizes
        )
        say = self.console.print
        say(
            f"{settings.model.name}: {anatomy.family}, {len(anatomy.layers)} layers,"
            f" {short_number(parameters(anatomy))} parameters, {short_number(macs(anatomy))} MACs for 10 s",
            highlight=False,
        )
        say(
            f"target: {targets}; audio: {len(settings.audio.training)} clips to train on and"
            f" {len(settings.audio.held_out)} held out, of {settings.audio.named} files or rows,"
            f" {settings.audio.training_seconds / 3600:.2f} h;"
            f" {self.accelerator.device.type}, {self.accelerator.mixed_precision.replace('no', 'float32')}",
            highlight=False,
        )
