"""Distillation of an encoder that is not one of slimvox's own, with the loop, objective and optimisers of stage 2."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from slimvox.encoder import SpeechEncoder
from slimvox.pruning.accelerator import build_accelerator
from slimvox.pruning.data import gather_audio
from slimvox.pruning.interrupts import StopRequests
from slimvox.pruning.parts import PruningParts
from slimvox.pruning.progress import JsonLog, StageProgress
from slimvox.pruning.recipe import Recipe
from slimvox.pruning.settings import StageSettings
from slimvox.pruning.stage import Stage
from slimvox.pruning.student import Student

SAVE_EVERY_SECONDS = 60.0


def distil(
    teacher: SpeechEncoder,
    student: SpeechEncoder,
    recipe: Recipe,
    audio: Sequence[Path],
    held_out: Path,
    out: Path,
    *,
    seed: int,
) -> None:
    """Train `student` in place, for as many steps as both stages of a recipe have; resumes from `out`.

    Raises:
        RunInterrupted: on Ctrl-C, after a checkpoint.
    """
    accelerator = build_accelerator(device="auto", precision="auto", log_directory=out)
    checkpoint, steps = out / "checkpoint.pt", recipe.prune.steps + recipe.finish.steps
    settings = StageSettings(**{**vars(recipe.finish), "steps": steps})
    stage = Stage(
        name="finish",
        student=Student(
            student.requires_grad_(True), PruningParts().build_distillation(teacher.anatomy, recipe)
        ).to(accelerator.device),
        teacher=copy.deepcopy(teacher).to(accelerator.device).requires_grad_(False),
        settings=settings,
        gate_settings=recipe.gates,
        schedule=None,
        seed=seed,
        accelerator=accelerator,
    )
    if checkpoint.is_file():
        stage.load_state_dict(torch.load(checkpoint, weights_only=True))
    data = gather_audio(audio, recipe.data, seed, [held_out])
    console = Console()
    with (
        StopRequests() as stop,
        data.batches(stage="finish", start=stage.step, process=0, processes=1) as batches,
        StageProgress(console, "low-rank", steps=steps, start=stage.step) as progress,
    ):
        stage.run(
            batches,
            progress=progress,
            log=JsonLog(out / "log.jsonl", enabled=True),
            stop=stop,
            save=lambda state: torch.save(state, checkpoint),
            save_every_seconds=SAVE_EVERY_SECONDS,
            log_every=1,
        )
    student.cpu().eval().requires_grad_(False)
