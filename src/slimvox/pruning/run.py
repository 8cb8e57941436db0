"""A whole pruning run: stage 1, surgery, stage 2, and the directory that comes out of it."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console

from slimvox.anatomy import EncoderAnatomy
from slimvox.checkpoint import load_model
from slimvox.cost import macs, parameters
from slimvox.distance import Distance, hidden_state_distance
from slimvox.distillation import Distillation, distilled_layers
from slimvox.encoder import SpeechEncoder
from slimvox.encoder.untrained import untrained_encoder
from slimvox.errors import SlimvoxError
from slimvox.gates import Gates, final_masks
from slimvox.gates.hard_concrete import typical_open_value
from slimvox.kept_indices import KeptIndices
from slimvox.pruning.accelerator import build_accelerator
from slimvox.pruning.controls import Control, control_scores, forgets_weights
from slimvox.pruning.data import gather_audio
from slimvox.pruning.machine_speed import latency_table, speed_up
from slimvox.pruning.outcome import write_outcome
from slimvox.pruning.progress import JsonLog, StageProgress
from slimvox.pruning.result import PruneResult, RunSettings, write_result
from slimvox.pruning.run_directory import RunDirectory
from slimvox.pruning.stage import Stage
from slimvox.pruning.student import Student
from slimvox.pruning.target import WantedTarget, aim
from slimvox.recipe import load_recipe
from slimvox.surgery import slice_encoder
from slimvox.units import short_number

logger = logging.getLogger("slimvox.pruning")

FAR_FROM_TARGET = 0.05
"""Gates whose expected sparsity misses the target by more than this get a warning."""


def prune(
    model: str | Path,
    audio: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    recipe: str | Path | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    target_parameters: str | float | None = None,
    target_macs: str | float | None = None,
    target_speed: str | float | None = None,
    held_out: Sequence[str | Path] = (),
    device: str = "auto",
    precision: str = "auto",
    max_steps: int | None = None,
    seed: int = 0,
    control: Control | None = None,
    checkpoint_seconds: float = 300.0,
    console: Console | None = None,
) -> PruneResult:
    """Prune a speech encoder on unlabelled audio; the command `slimvox prune` as a function.

    The same call goes on where an interrupted one stopped.

    Args:
        model: `embedded`, a directory or a model id on the hub; a directory that slimvox wrote can be pruned further.
        audio: files, folders, lists or manifests of audio.
        out: directory to write, new or empty.
        recipe: `default`, `paper`, `fast`, `quick` or the path of a TOML file; if none is given, `quick` for the
            embedded teacher, else `default`.
        overrides: fields of the recipe to change, such as `["prune.steps=1000"]`.
        target_parameters: what is kept, as a share of the dense encoder ("28%", 0.28) or a number ("26.5M").
        target_macs: the same for multiply-accumulates (of a clip of `target.seconds`).
        target_speed: how many times faster than the dense encoder ("4x"), float32, on the device of the run with its
            number of threads; predicted from a table that the run first measures.
        held_out: audio to measure the distance to the teacher on; otherwise a part of `audio` is put aside.
        device: `auto`, `cpu`, `cuda` or `mps`.
        precision: `auto`, `float32` or `bf16` (autocast; weights and gates stay float32).
        max_steps: squeeze both stages into this many steps; the target is met all the same.
        seed: of everything random.
        control: skip learning what to prune: `random`, `magnitude`, `top-layers` or `thin` (see
            `slimvox.pruning.controls`).
        checkpoint_seconds: time from checkpoint to checkpoint.
        console: where progress is shown; None shows nothing.

    Raises:
        SlimvoxError: for anything the caller can mend.
        RunInterrupted: on Ctrl-C, after a checkpoint.
    """
    sources = [audio] if isinstance(audio, (str, Path)) else list(audio)
    directory = RunDirectory(path=Path(out).expanduser())
    directory.refuse_if_taken()
    loaded = load_model(model)
    name = recipe or ("quick" if str(model) == "embedded" else "default")
    chosen = load_recipe(name, overrides)
    if max_steps is not None:
        if max_steps < 1:
            raise SlimvoxError(f"`max_steps` must be at least 1, but is {max_steps} instead")
        chosen = chosen.limited_to(max_steps)
    wanted = WantedTarget(parameters=target_parameters, macs=target_macs, speed=target_speed)
    accelerator = build_accelerator(device=device, precision=precision, log_directory=directory.run)
    console = console or Console(quiet=True)
    chosen, budget = aim(
        chosen,
        loaded.encoder,
        wanted,
        lambda seconds: latency_table(loaded.encoder.dense_anatomy, seconds, directory, accelerator, console),
    )
    settings = RunSettings(
        model=loaded,
        recipe=chosen,
        budget=budget,
        audio=gather_audio(sources, chosen.data, seed, held_out),
        audio_names=tuple(Path(source).name for source in sources),
        out=directory,
        seed=seed,
        control=control,
    )
    run = _Run(settings, accelerator, console, checkpoint_seconds)
    return run.execute()


class _Run:
    """The run itself; its state is a stage and, between the stages, what surgery kept."""

    def __init__(
        self, settings: RunSettings, accelerator: Accelerator, console: Console, checkpoint_seconds: float
    ) -> None:
        self.settings, self.accelerator, self.console = settings, accelerator, console
        self.checkpoint_seconds = checkpoint_seconds
        self.main = accelerator.is_main_process
        self.teacher = settings.model.encoder.to(accelerator.device).requires_grad_(False)
        self.held_out = settings.audio.held_out_waveforms() if self.main else []
        self.log = JsonLog(settings.out.log, enabled=self.main)
        self.kept = KeptIndices.everything(self.teacher.anatomy)
        self.distance_after_prune: Distance | None = None

    def execute(self) -> PruneResult:
        """Run from the start, or from the last checkpoint."""
        out, fingerprint = self.settings.out, self._fingerprint()
        if self.main:
            out.claim(fingerprint)
            if self.settings.budget.measure.latency is not None:
                out.save_latency(self.settings.budget.measure.latency)
        self.accelerator.wait_for_everyone()
        if not self.main:
            return self._stages(out.load_checkpoint())
        with out.locked():
            if self.accelerator.log_with:
                self.accelerator.init_trackers("tensorboard")
            checkpoint = out.load_checkpoint()
            self._introduce(checkpoint)
            result = self._stages(checkpoint)
            out.finish(fingerprint)
            self.accelerator.end_training()
            return result

    def _stages(self, checkpoint: dict[str, Any] | None) -> PruneResult:
        recipe = self.settings.recipe
        if checkpoint is None or checkpoint["stage"] == "prune":
            student = self._first_student()
            if self.settings.control is None:
                stage = self._stage("prune", student)
                self._train(stage, checkpoint)
                student = self.accelerator.unwrap_model(stage.student)
            small = self._cut(student)
            checkpoint = None
        else:
            anatomy = EncoderAnatomy.from_dict(checkpoint["anatomy"])
            encoder = SpeechEncoder(anatomy, self.teacher.dense_anatomy)
            small = self._student(encoder, self._distillation())
            self.kept = KeptIndices.from_dict(checkpoint["kept"])
            distance = checkpoint["distance_after_prune"]
            self.distance_after_prune = Distance(**distance) if distance else None
        if recipe.finish.steps or self.settings.control is not None:
            stage = self._stage("finish", small)
            if checkpoint is None:
                self._save(stage.state_dict())
            self._train(stage, checkpoint)
        return self._finish(small.encoder)

    def _first_student(self) -> Student:
        encoder = copy.deepcopy(self.teacher).requires_grad_(True)
        recipe = self.settings.recipe
        gates = Gates(
            encoder.anatomy,
            recipe.structures.enabled(),
            initial_drop=recipe.gates.initial_drop,
            initial_drops=recipe.gates.initial_drops(),
            straight_through=recipe.gates.straight_through,
        )
        return self._student(encoder, self._distillation(), gates)

    def _student(
        self, encoder: SpeechEncoder, distillation: Distillation, gates: Gates | None = None
    ) -> Student:
        recipe = self.settings.recipe
        student = Student(
            encoder,
            distillation,
            gates=gates,
            budget=None if gates is None else self.settings.budget,
            initial_quadratic_multiplier=recipe.gates.initial_quadratic_multiplier,
            masked_share=recipe.distillation.masked_share,
        )
        return student.to(self.accelerator.device)

    def _distillation(self) -> Distillation:
        anatomy, settings = self.teacher.anatomy, self.settings.recipe.distillation
        return Distillation(
            anatomy.width,
            distilled_layers(len(anatomy.layers), settings.layers),
            l1_weight=settings.l1_weight,
            cosine_weight=settings.cosine_weight,
            relation_weight=settings.relation_weight,
            maps=settings.maps,
            group_means=settings.targets == "groups",
        )

    def _stage(self, name: str, student: Student) -> Stage:
        recipe = self.settings.recipe
        settings = recipe.prune if name == "prune" else recipe.finish
        if self.settings.control is not None:
            # A control is distilled for as many steps as both stages have.
            settings = replace(settings, steps=recipe.prune.steps + recipe.finish.steps)
        return Stage(
            name=name,
            student=student,
            teacher=self.teacher,
            settings=settings,
            gate_settings=recipe.gates,
            target_sparsity=self.settings.budget.target_sparsity,
            seed=self.settings.seed,
            accelerator=self.accelerator,
        )

    def _train(self, stage: Stage, checkpoint: dict[str, Any] | None) -> None:
        if checkpoint is not None:
            stage.load_state_dict(checkpoint)
        self.log.forget_after(stage.name, stage.step)
        batches = self.settings.audio.batches(
            stage=stage.name,
            start=stage.step,
            process=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
        )
        title = {"prune": "1/2 prune ", "finish": "2/2 finish"}[stage.name]
        progress = StageProgress(
            self.console, title, steps=stage.settings.steps, start=stage.step, enabled=self.main
        )
        with batches, progress:
            stage.run(
                batches,
                progress=progress,
                log=self.log,
                save=self._save,
                save_every_seconds=self.checkpoint_seconds,
                log_every=max(1, stage.settings.steps // 1000),
            )

    def _cut(self, student: Student) -> Student:
        """Choose the final masks and do the surgery; the distillation maps go on in stage 2."""
        settings, encoder = self.settings, student.encoder
        assert student.gates is not None
        groups, log_alpha = student.gates.groups, student.gates.log_alpha.detach().cpu()
        if settings.control is None:
            sparsity = settings.budget.expected_sparsity(encoder.anatomy, student.gates.expected_sizes())
            gap = float(sparsity.detach()) - settings.budget.target_sparsity
            if abs(gap) > FAR_FROM_TARGET and self.main:
                logger.warning(
                    "the gates were still far from the target: expected sparsity %.0f %%, target %.0f %%."
                    " The target is met all the same, but a longer stage 1 (`prune.steps`) or a higher"
                    " `gates.learning_rate` would prune better.",
                    100 * float(sparsity.detach()),
                    100 * settings.budget.target_sparsity,
                )
            scores = log_alpha
        else:
            scores = control_scores(settings.control, encoder, groups, settings.seed)
        soft = settings.recipe.gates.final_values == "soft" and settings.control is None
        chosen = final_masks(
            encoder.anatomy,
            groups,
            scores,
            typical_open_value(log_alpha) if soft else torch.ones_like(log_alpha),
            settings.budget,
        )
        sliced = slice_encoder(encoder.cpu(), chosen.masks)
        self.kept = sliced.kept
        remaining = sliced.encoder
        if forgets_weights(settings.control):
            remaining = untrained_encoder(remaining.anatomy, remaining.dense_anatomy, seed=settings.seed)
        small = self._student(remaining, student.distillation)
        if self.main:
            self.distance_after_prune = hidden_state_distance(self.teacher, small.encoder, self.held_out)
        return small

    def _save(self, state: dict[str, Any]) -> None:
        """Write a checkpoint: the stage's state and, in stage 2, what surgery decided."""
        if not self.main:
            return
        if state["stage"] == "finish":
            distance = self.distance_after_prune
            state = {
                **state,
                "anatomy": self.kept.anatomy(self.teacher.anatomy).to_dict(),
                "kept": self.kept.to_dict(),
                "distance_after_prune": asdict(distance) if distance else None,
            }
        self.settings.out.save_checkpoint(state)

    def _finish(self, encoder: SpeechEncoder) -> PruneResult:
        """Measure, and write the slimvox directory."""
        settings = self.settings
        encoder = encoder.eval().requires_grad_(False)
        distance = hidden_state_distance(self.teacher, encoder, self.held_out) if self.main else None
        by_speed = self.main and settings.budget.measure.latency is not None
        faster = speed_up(encoder, settings.budget.measure.seconds) if by_speed else None
        encoder = encoder.cpu()
        dense = encoder.dense_anatomy
        result = PruneResult(
            directory=settings.out.path,
            encoder=encoder,
            parameters=parameters(encoder.anatomy),
            parameters_dense=parameters(dense),
            macs_10s=macs(encoder.anatomy),
            macs_10s_dense=macs(dense),
            distance_after_prune=self.distance_after_prune,
            distance_after_finish=distance,
            speed_up=faster,
            skipped_files=settings.audio.skips.counts,
        )
        if self.main:
            write_outcome(result, settings, self.accelerator.device)
            write_result(result, settings, self.kept)
        self.accelerator.wait_for_everyone()
        return result

    def _introduce(self, checkpoint: dict[str, Any] | None) -> None:
        """Say what is about to happen."""
        settings, budget = self.settings, self.settings.budget
        anatomy, measure = self.teacher.anatomy, budget.measure
        say = self.console.print
        say(
            f"{settings.model.name}: {anatomy.family}, {len(anatomy.layers)} layers,"
            f" {short_number(parameters(anatomy))} parameters, {short_number(macs(anatomy))} MACs for 10 s",
            highlight=False,
        )
        say(
            f"target: {measure.describe(budget.target)}"
            f" ({budget.target / measure.cost(self.teacher.dense_anatomy):.1%} of dense);"
            f" audio: {len(settings.audio.training)} clips, {settings.audio.training_seconds / 3600:.2f} h;"
            f" {self.accelerator.device.type}, {self.accelerator.mixed_precision.replace('no', 'float32')}",
            highlight=False,
        )
        if checkpoint is not None:
            say(f"going on from step {checkpoint['step']} of stage {checkpoint['stage']}", highlight=False)

    def _fingerprint(self) -> dict[str, Any]:
        """What two commands must agree on to be the same run."""
        settings = self.settings
        digest = hashlib.sha256(json.dumps(self.teacher.anatomy.to_dict()).encode())
        for name, tensor in sorted(self.teacher.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy())
        return {
            "model": digest.hexdigest(),
            "audio": settings.audio.fingerprint,
            "recipe": settings.recipe.to_dict(),
            "target": settings.budget.target,
            "seed": settings.seed,
            "control": settings.control,
            "precision": self.accelerator.mixed_precision,
            "processes": self.accelerator.num_processes,
        }
