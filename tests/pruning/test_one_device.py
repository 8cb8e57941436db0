"""No step of training makes the host wait for the device but for one read, and all its tensors lie on one device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from drawn import uneven_masks
from one_device import META, copies_listed, reads_counted, use_meta
from slimvox.pruning.gates import projection
from slimvox.pruning.surgery import slice_encoder
from slimvox.structures import structure_names
from students import make_stage, make_student, make_teacher, one_step

STAGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "stage 1, projection": (
        {"structures": structure_names(), "maps": True, "weights": {"relation": 1.0}},
        {"sparsity": 0.5, "teacher_forcing": 0.5},
    ),
    "stage 1, lagrangian": (
        {"structures": structure_names(), "initial_quadratic": 1.0, "group_means": True},
        {"sparsity": 0.5},
    ),
    "stage 2": ({"masked_share": 0.3, "maps": True}, {"teacher_forcing": 1.0}),
}
"""Options of the student and of the stage."""
LENGTHS = (1600, 2240)
"""Samples of the clips of each step."""


@pytest.mark.parametrize(
    ("name", "encoder"),
    [
        ("stage 1, projection", {}),
        ("stage 1, lagrangian", {"layout": "large"}),
        ("stage 2", {}),
        ("stage 2", {"family": "data2vec-audio"}),
    ],
)
def test_a_step_reads_the_device_once_and_copies_audio_and_noise_to_it(
    name: str, encoder: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_meta(monkeypatch)
    monkeypatch.setattr(projection, "UNSEEN_EVALUATIONS", 2)
    of_student, of_stage = STAGES[name]
    teacher = make_teacher(**encoder)
    student = make_student(teacher, **of_student)
    if student.gates is None:
        student.encoder = slice_encoder(student.encoder, uneven_masks(teacher.anatomy)).encoder
    stage = make_stage(
        teacher.to(META), student.to(META), tmp_path, steps=8, matrix_optimiser="muon", **of_stage
    )
    for length in LENGTHS:
        waveforms = torch.randn(2, length)
        with reads_counted(monkeypatch) as reads, copies_listed() as copies:
            one_step(stage, waveforms)
        (names,) = reads
        assert {"loss", "distillation", "gradient_norm", "finite"} < names
        assert ("sparsity" in names) == ("lambda1" in names) == (student.gates is not None)
        if stage.step:  # indices and coefficients that do not change are copied once
            frames = 2 * teacher.anatomy.frames(length)
            noise = student.gates.log_alpha.numel() if student.gates is not None else frames
            assert sorted(copies) == sorted([waveforms.numel(), noise])
        stage.step += 1
