"""A whole pruning run: stage 1, surgery, stage 2, and the directory that comes out of it."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console

from slimvox.anatomy import EncoderAnatomy
from slimvox.budget import Budget
from slimvox.checkpoint import LoadedModel, load_model, write_slimvox_directory
from slimvox.checkpoint.model_card import Provenance, licence_of, model_card
from slimvox.checkpoint.transformers_reader import read_json
from slimvox.cost import CostKind, cost, macs, parameters
from slimvox.distance import Distance, hidden_state_distance
from slimvox.distillation import Distillation, distilled_layers
from slimvox.encoder import SpeechEncoder
from slimvox.errors import SlimvoxError
from slimvox.gates import Gates, check_reachable, final_masks, gate_groups
from slimvox.gates.hard_concrete import typical_open_value
from slimvox.kept_indices import KeptIndices
from slimvox.pruning.accelerator import build_accelerator
from slimvox.pruning.controls import Control, control_scores
from slimvox.pruning.data import RunAudio, gather_audio
from slimvox.pruning.progress import JsonLog, StageProgress
from slimvox.pruning.run_directory import RunDirectory
from slimvox.pruning.stage import Stage
from slimvox.pruning.student import Student
from slimvox.recipe import Recipe, load_recipe, to_toml
from slimvox.surgery import slice_encoder
from slimvox.units import parse_amount, short_number

logger = logging.getLogger("slimvox.pruning")

FAR_FROM_TARGET = 0.05
"""Gates whose expected sparsity misses the target by more than this get a warning."""


@dataclass(frozen=True, kw_only=True)
class PruneResult:
    """What a run gave."""

    directory: Path
    """The slimvox directory."""
    encoder: SpeechEncoder
    """The pruned encoder, on the CPU, in evaluation mode."""
    parameters: int
    parameters_dense: int
    macs_10s: int
    macs_10s_dense: int
    distance_after_prune: Distance | None
    """Distance to the teacher right after surgery; None where no audio was held out."""
    distance_after_finish: Distance | None
    """The same at the end."""
    skipped_files: dict[str, int]
    """Audio files left out, by reason."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What a run was asked for, checked."""

    model: LoadedModel
    recipe: Recipe
    budget: Budget
    audio: RunAudio
    audio_names: tuple[str, ...]
    out: RunDirectory
    seed: int
    control: Control | None


def prune(
    model: str | Path,
    audio: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    recipe: str | Path | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    target_parameters: str | float | None = None,
    target_macs: str | float | None = None,
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
        recipe: `paper`, `fast`, `quick` or the path of a TOML file; `quick` for the embedded teacher, else `paper`.
        overrides: fields of the recipe to change, such as `["prune.steps=1000"]`.
        target_parameters: what is kept, as a share of the dense encoder ("28%", 0.28) or a number ("26.5M").
        target_macs: the same for multiply-accumulates (of a clip of `target.seconds`).
        held_out: audio to measure the distance to the teacher on; otherwise a part of `audio` is put aside.
        device: `auto`, `cpu`, `cuda` or `mps`.
        precision: `auto`, `float32` or `bf16` (autocast; weights and gates stay float32).
        max_steps: squeeze both stages into this many steps; the target is met all the same.
        seed: of everything random.
        control: skip learning what to prune: `random` or `top-layers` (see `slimvox.pruning.controls`).
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
    name = recipe or ("quick" if str(model) == "embedded" else "paper")
    chosen = load_recipe(name, overrides)
    if max_steps is not None:
        if max_steps < 1:
            raise SlimvoxError(f"`max_steps` must be at least 1, but is {max_steps} instead")
        chosen = chosen.limited_to(max_steps)
    chosen, budget = _budget(chosen, loaded.encoder, target_parameters, target_macs)
    accelerator = build_accelerator(device=device, precision=precision, log_directory=directory.run)
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
    run = _Run(settings, accelerator, console or Console(quiet=True), checkpoint_seconds)
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
            small = Student(encoder.to(self.accelerator.device), self._distillation())
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
            straight_through=recipe.gates.straight_through,
        )
        student = Student(encoder, self._distillation(), gates=gates, budget=self.settings.budget)
        return student.to(self.accelerator.device)

    def _distillation(self) -> Distillation:
        anatomy, settings = self.teacher.anatomy, self.settings.recipe.distillation
        layers = distilled_layers(len(anatomy.layers), settings.layers)
        return Distillation(
            anatomy.width, layers, l1_weight=settings.l1_weight, cosine_weight=settings.cosine_weight
        ).to(self.accelerator.device)

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
            scores = control_scores(settings.control, groups, settings.seed)
        soft = settings.recipe.gates.final_values == "soft" and settings.control is None
        chosen = final_masks(
            encoder.anatomy,
            groups,
            scores,
            typical_open_value(log_alpha) if soft else torch.ones_like(log_alpha),
            target=settings.budget.target,
            kind=settings.budget.kind,
            seconds=settings.budget.seconds,
        )
        sliced = slice_encoder(encoder.cpu(), chosen.masks)
        self.kept = sliced.kept
        small = Student(sliced.encoder, student.distillation).to(self.accelerator.device)
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
            skipped_files=settings.audio.skips.counts,
        )
        if self.main:
            self._write(result)
        self.accelerator.wait_for_everyone()
        return result

    def _write(self, result: PruneResult) -> None:
        settings, recipe = self.settings, self.settings.recipe
        kept, earlier = self.kept, settings.model.directory / "kept_indices.json"
        if earlier.is_file():
            kept = kept.within(KeptIndices.from_dict(read_json(earlier)))
        provenance = Provenance(
            teacher=settings.model.public_name,
            teacher_licence=licence_of(settings.model.directory),
            audio=settings.audio_names,
            audio_hours=settings.audio.training_seconds / 3600,
        )
        figures = {
            "recipe": recipe.name + (f", control: {settings.control}" if settings.control else ""),
            "steps": f"{recipe.prune.steps} + {recipe.finish.steps}",
            "seed": str(settings.seed),
            "distance to the teacher after stage 1": _distance_text(result.distance_after_prune),
            "distance to the teacher after stage 2": _distance_text(result.distance_after_finish),
            "audio files skipped": str(sum(result.skipped_files.values())),
        }
        card = model_card(
            result.encoder.anatomy,
            result.encoder.dense_anatomy,
            provenance,
            recipe=to_toml(recipe),
            figures=figures,
        )
        details = {
            "teacher": {"name": provenance.teacher, "licence": provenance.teacher_licence},
            "run": {"recipe": recipe.to_dict(), "seed": settings.seed, "control": settings.control},
        }
        try:
            write_slimvox_directory(
                result.encoder,
                settings.out.path,
                kept_indices=kept.to_dict(),
                model_card=card,
                details=details,
            )
        except OSError as error:
            raise SlimvoxError(
                f"{settings.out.path} can't be written: {error.strerror}; the last checkpoint is kept: make room, then"
                " repeat the same command"
            ) from error

    def _introduce(self, checkpoint: dict[str, Any] | None) -> None:
        """Say what is about to happen."""
        settings, budget = self.settings, self.settings.budget
        anatomy, unit = self.teacher.anatomy, "parameters" if budget.kind == "params" else "MACs"
        say = self.console.print
        say(
            f"{settings.model.name}: {anatomy.family}, {len(anatomy.layers)} layers,"
            f" {short_number(parameters(anatomy))} parameters, {short_number(macs(anatomy))} MACs for 10 s",
            highlight=False,
        )
        say(
            f"target: {short_number(budget.target)} {unit}"
            f" ({budget.target / cost(self.teacher.dense_anatomy, budget.kind, seconds=budget.seconds):.1%} of dense);"
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


def _budget(
    recipe: Recipe,
    encoder: SpeechEncoder,
    target_parameters: str | float | None,
    target_macs: str | float | None,
) -> tuple[Recipe, Budget]:
    """The recipe with its target as asked for, and the budget that this means for an encoder.

    Raises:
        SlimvoxError: if the target makes no sense or can't be reached.
    """
    if target_parameters is not None and target_macs is not None:
        raise SlimvoxError("give `target_parameters` or `target_macs`, not both")
    settings = recipe.target
    if target_parameters is not None or target_macs is not None:
        kind: CostKind = "params" if target_macs is None else "macs"
        name = "target_parameters" if target_macs is None else "target_macs"
        asked = parse_amount(str(target_parameters if target_macs is None else target_macs), name)
        whole = cost(encoder.dense_anatomy, kind, seconds=settings.seconds)
        keep = asked.of(whole) / whole
        if not 0 < keep < 1:
            raise SlimvoxError(
                f"`{name}` must be below what the dense encoder has, {short_number(whole)}, but is"
                f" {short_number(asked.of(whole))} instead"
            )
        settings = replace(settings, kind=kind, keep=keep)
        recipe = replace(recipe, target=settings)
    anatomy = encoder.anatomy
    budget = Budget(
        kind=settings.kind,
        target=settings.keep * cost(encoder.dense_anatomy, settings.kind, seconds=settings.seconds),
        dense_cost=cost(anatomy, settings.kind, seconds=settings.seconds),
        seconds=settings.seconds,
    )
    if budget.target >= budget.dense_cost:
        raise SlimvoxError(
            f"the target of {short_number(budget.target)} is not below what this encoder costs already,"
            f" {short_number(budget.dense_cost)}; give a smaller target"
        )
    groups = gate_groups(anatomy, recipe.structures.enabled())
    if not groups:
        raise SlimvoxError("the encoder has none of the structures that the recipe prunes; switch others on")
    check_reachable(anatomy, groups, budget.kind, target=budget.target, seconds=budget.seconds)
    return recipe, budget


def _distance_text(distance: Distance | None) -> str:
    if distance is None:
        return "not measured (no audio held out)"
    return (
        f"relative error {distance.relative_error:.3f}, 1 - cosine {distance.cosine:.3f}"
        f" (all hidden states, {distance.seconds:.0f} s of audio held out)"
    )
