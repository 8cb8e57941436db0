"""A tiny teacher, students of it and single stages of training, without a whole run around them."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from drawn import random_encoder
from models import config
from slimvox.audio import AudioBatch
from slimvox.checkpoint.transformers_config import anatomy_from_config
from slimvox.costs import Parameters
from slimvox.encoder import SpeechEncoder
from slimvox.pruning.accelerator import build_accelerator
from slimvox.pruning.budget import Budget, Lagrangian, SparsitySchedule
from slimvox.pruning.distillation import Distillation
from slimvox.pruning.gates import Gates
from slimvox.pruning.interrupts import StopRequests
from slimvox.pruning.progress import JsonLog, StageProgress
from slimvox.pruning.settings import GateSettings, StageSettings
from slimvox.pruning.stage import Stage
from slimvox.pruning.student import Student

WAVEFORMS = torch.randn(2, 1600, generator=torch.Generator().manual_seed(0))
"""The batch of these tests: two clips of a tenth of a second."""
STILL = 1e-20
"""A learning rate at which nothing moves (0 is refused by some optimisers)."""


def make_teacher(seed: int = 0, *, family: str = "wavlm", **changes: Any) -> SpeechEncoder:
    """A tiny encoder with random weights, frozen."""
    anatomy = anatomy_from_config(config(family, **changes).to_dict(), "test", normalize_waveform=False)
    return random_encoder(anatomy, seed).requires_grad_(False)


def make_student(
    teacher: SpeechEncoder,
    *,
    noise: float = 0.0,
    structures: Collection[str] = (),
    initial_drop: float = 0.1,
    straight_through: bool = True,
    initial_quadratic: float | None = None,
    masked_share: float = 0.0,
    **distillation: Any,
) -> Student:
    """A copy of the teacher to be trained.

    Args:
        teacher: see `make_teacher`.
        noise: how far its weights start from the teacher's, as a share of their own standard deviation.
        structures: what has gates; none in stage 2.
        initial_drop: of the gates.
        straight_through: of the gates.
        initial_quadratic: where the second multiplier starts; None for gates without multipliers.
        masked_share: of the frames that the student is not shown.
        distillation: options of the loss; all states are compared, without maps, unless they say otherwise.
    """
    encoder, generator = copy.deepcopy(teacher).requires_grad_(True), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.numel() > 1:
                parameter.add_(noise * parameter.std() * torch.randn(parameter.shape, generator=generator))
    anatomy = encoder.anatomy
    dense = Parameters().of(anatomy)
    gates = None
    if structures:
        gates = Gates(anatomy, structures, initial_drop=initial_drop, straight_through=straight_through)
    options: dict[str, Any] = {"layers": range(len(anatomy.layers) + 1), "maps": False, **distillation}
    return Student(
        encoder,
        Distillation(anatomy.width, options.pop("layers"), **options),
        gates=gates,
        budget=None if gates is None else Budget(cost=Parameters(), target=0.5 * dense, dense_cost=dense),
        lagrangian=None if initial_quadratic is None else Lagrangian(initial_quadratic),
        masked_share=masked_share,
    )


def make_stage(
    teacher: SpeechEncoder,
    student: Student,
    folder: Path,
    *,
    sparsity: float | None = None,
    ramp_steps: int = 1,
    gates: GateSettings | None = None,
    seed: int = 0,
    **settings: Any,
) -> Stage:
    """A stage on the CPU in float32; `settings` are fields of `StageSettings`, `sparsity` is the target of stage 1."""
    stage = StageSettings(**{"steps": 10, "learning_rate": 1e-3, **settings})
    schedule = None
    if sparsity is not None:
        schedule = SparsitySchedule(sparsities=(sparsity,), ramp_steps=ramp_steps, steps=stage.steps)
    return Stage(
        name="finish" if student.gates is None else "prune",
        student=student,
        teacher=teacher,
        settings=stage,
        gate_settings=gates or GateSettings(learning_rate=0.2),
        schedule=schedule,
        seed=seed,
        accelerator=build_accelerator(device="cpu", precision="float32", log_directory=folder),
    )


def fixed_batches(waveforms: Tensor = WAVEFORMS) -> Iterator[AudioBatch]:
    """The same batch at every step, in place of audio."""
    for step in itertools.count():
        yield AudioBatch(
            waveforms=waveforms,
            seconds=waveforms.numel() / 16_000,
            step=step,
            slots=tuple(range(len(waveforms))),
            planned=len(waveforms),
        )


def one_step(stage: Stage, waveforms: Tensor = WAVEFORMS) -> dict[str, float]:
    """One optimiser step on some clips; returns what is logged. The stage does not count it."""
    return stage._train_step(fixed_batches(waveforms))[0]


def train(stage: Stage, folder: Path, waveforms: Tensor = WAVEFORMS) -> list[dict[str, Any]]:
    """Run a stage to its end on one batch; returns what it logged at every step."""
    log = folder / "log.jsonl"
    log.unlink(missing_ok=True)
    progress = StageProgress(Console(quiet=True), "test", steps=stage.settings.steps, start=0, enabled=False)
    stage.run(
        fixed_batches(waveforms),
        progress=progress,
        log=JsonLog(log),
        stop=StopRequests(),
        save=lambda state: None,
        save_every_seconds=1e9,
        log_every=1,
    )
    return [json.loads(line) for line in log.read_text().splitlines()]
