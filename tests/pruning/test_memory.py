"""The division of steps that a run chooses from what a clip costs and what memory is free."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import slimvox
from interruptions import interrupted_after
from slimvox.encoder import SpeechEncoder
from slimvox.pruning import memory
from slimvox.pruning.memory import PassCost, optimiser_bytes, peak_memory, plan_steps
from slimvox.pruning.micro_batches import Division, MicroBatches
from slimvox.pruning.stage import Stage
from slimvox.structures import structure_names
from students import make_stage, make_student, make_teacher, one_step
from tiny_runs import make_run

MIB = 2**20
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoder() -> SpeechEncoder:
    return make_teacher()


@pytest.fixture
def stage(encoder: SpeechEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A stage whose clips cost 100 MiB, or 10 with activation checkpointing, beside 50 MiB for all."""

    def cost(_stage: Stage, clip_seconds: float, recompute: bool) -> PassCost:
        return PassCost(clip_bytes=(10 if recompute else 100) * MIB, constant_bytes=50 * MIB, seconds=0.5)

    monkeypatch.setattr(memory, "_pass_cost", cost)
    monkeypatch.setattr(memory, "optimiser_bytes", lambda _: 30 * MIB)
    monkeypatch.setattr(memory, "used_memory", lambda _: 7 * MIB)
    return make_stage(encoder, make_student(encoder), tmp_path)


@pytest.mark.parametrize(
    ("free", "options", "expected"),
    [
        (1000, {}, Division(seconds=14.0)),  # 800 usable - 80 = 7 clips
        (100_000, {}, Division(seconds=16.0)),  # more is not faster on a CPU
        (230, {}, Division(seconds=2.0)),
        (220, {}, Division(seconds=16.0, recompute=True)),  # not even one clip without
        (220, {"recompute": "on"}, Division(seconds=16.0, recompute=True)),
        (1000, {"micro_batch_seconds": 30.0}, Division(seconds=30.0, recompute=True)),
        (1000, {"micro_batch_seconds": 6.0}, Division(seconds=6.0)),
        (1000, {"micro_batch_seconds": 30.0, "recompute": "off"}, Division(seconds=30.0)),
        (220, {"earlier": Division(seconds=8.0, recompute=True)}, Division(seconds=8.0, recompute=True)),
        (5000, {"earlier": Division(seconds=4.0)}, Division(seconds=4.0)),
        (5000, {"earlier": Division(seconds=4.0), "micro_batch_seconds": 2.0}, Division(seconds=2.0)),
    ],
)
def test_the_division_is_what_fits(
    free: int, options: dict[str, Any], expected: Division, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda _: free * MIB)
    plan = plan_steps(stage, clip_seconds=2.0, **options)
    assert plan.division == expected
    clips = expected.seconds / 2
    assert plan.expected_bytes == (7 + 80 + clips * (10 if expected.recompute else 100)) * MIB
    assert plan.audio_rate == pytest.approx(4.0)


def test_a_clip_that_does_not_fit_is_one_sentence(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_pass_cost", lambda *_: None)
    with pytest.raises(slimvox.SlimvoxError, match=r"not enough memory for a single clip of 2\.0 s"):
        plan_steps(stage, clip_seconds=2.0)


def test_measuring_leaves_the_stage_as_it_was_and_finds_what_it_costs(
    encoder: SpeechEncoder, tmp_path: Path
) -> None:
    """Twins, of which one is measured: the same step follows. Longer clips cost more, checkpointed ones less."""
    values = []
    for measured in (False, True):
        student = make_student(encoder, noise=0.3, structures=structure_names(), masked_share=0.3)
        stage = make_stage(encoder, student, tmp_path, sparsity=0.3, matrix_optimiser="muon")
        if measured:
            plan = plan_steps(stage, clip_seconds=0.3)
            assert plan.division == Division(seconds=16.0)
            assert plan.expected_bytes > 50 * MIB and plan.audio_rate > 0
            assert all(parameter.grad is None for parameter in student.parameters())
        values.append(one_step(stage))
    assert values[0] == values[1]


def test_a_clip_that_runs_out_of_memory_when_measured_is_computed_again(
    encoder: SpeechEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rehearse = Stage.rehearse

    def limited(self: Stage, waveforms: torch.Tensor, recompute: bool) -> None:
        if not recompute:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        rehearse(self, waveforms, recompute)

    monkeypatch.setattr(Stage, "rehearse", limited)
    stage = make_stage(encoder, make_student(encoder), tmp_path)
    assert plan_steps(stage, clip_seconds=0.3).division.recompute
    with pytest.raises(slimvox.SlimvoxError, match="allow activation checkpointing"):
        plan_steps(stage, clip_seconds=0.3, recompute="off")


def test_the_state_of_the_optimisers_is_counted_before_it_is_there(
    encoder: SpeechEncoder, tmp_path: Path
) -> None:
    student = make_student(encoder, noise=0.3, structures=structure_names())
    stage = make_stage(encoder, student, tmp_path, sparsity=0.3, matrix_optimiser="muon")
    counted = optimiser_bytes(stage)
    one_step(stage)
    held = sum(
        tensor.nbytes
        for optimiser in stage.optimisers.values()
        for state in optimiser.state.values()
        for tensor in state.values()
        if isinstance(tensor, torch.Tensor) and tensor.dim()
    )
    assert counted == pytest.approx(held, rel=0.02)
    assert optimiser_bytes(stage) == 0


def test_the_peak_is_seen_though_it_has_passed() -> None:
    with peak_memory(CPU) as peak:
        block = np.ones(60 * MIB, dtype=np.uint8)
        for _ in range(20):
            block += 1
        del block
    assert 50 * MIB < peak[0] < 120 * MIB


@pytest.mark.parametrize(
    ("files", "left"),
    [
        (
            {"memory.max": "1000\n", "memory.current": "700", "memory.stat": "anon 5\ninactive_file 100\n"},
            400,
        ),
        ({"memory.max": "max\n", "memory.current": "700", "memory.stat": ""}, None),
        (
            {
                "memory/memory.limit_in_bytes": "500",
                "memory/memory.usage_in_bytes": "450",
                "memory/memory.stat": "total_inactive_file 20",
            },
            70,
        ),
        ({"memory/memory.limit_in_bytes": "9223372036854771712", "memory/memory.usage_in_bytes": "1"}, None),
        ({}, None),
    ],
)
def test_memory_left_in_a_container(files: dict[str, str], left: int | None, tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert memory._group_memory(tmp_path) == left


def test_processes_of_one_machine_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_group_memory", lambda _: 800)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert memory.free_memory(CPU) == 800
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert memory.free_memory(CPU) == 200


def test_a_run_says_what_it_expects_and_goes_on_with_its_division(
    teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The division is not part of the run's identity, and a resumed run keeps the one that it had come to."""
    out = tmp_path / "out"
    console = Console(record=True, width=400)
    shrunk: list[Division] = []
    backward = Stage._backward

    def running_out(self: Stage, *arguments: Any) -> Any:
        if self.step == 1 and not shrunk:
            shrunk.append(self.micro_batches.division)
            return None
        return backward(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Stage, "_backward", running_out)
        with interrupted_after("prune", 3):
            make_run(out, teacher, speech, micro_batch_seconds=2.0, console=console)
    text = console.export_text()
    assert "stage prune: micro-batches of up to 2.0 s without activation checkpointing" in text
    assert "GiB expected per process" in text and "s of audio per second" in text
    assert "`--micro-batch-seconds`" in text and "`--max-steps`" in text
    kept = json.loads((out / "run" / "division.json").read_text())["division"]
    assert shrunk == [Division(seconds=2.0)] and kept["seconds"] < 2.0
    used = []
    accumulate = Stage._accumulate

    def looking(self: Stage, *arguments: Any) -> Any:
        if self.name == "prune":
            used.append(self.micro_batches.division)
        return accumulate(self, *arguments)

    monkeypatch.setattr(Stage, "_accumulate", looking)
    result = make_run(out, teacher, speech)
    assert used[-1].seconds == kept["seconds"] and result.directory == out
    assert not (out / "run" / "division.json").exists()


def test_micro_batches_remember_each_division() -> None:
    remembered: list[Division] = []
    batches = MicroBatches(Division(seconds=8.0), remember=remembered.append)
    for _ in range(4):
        batches.shrink(8, 16_000)
    assert [each.seconds for each in remembered] == [4.0, 2.0, 1.0, 1.0]
    assert [each.recompute for each in remembered] == [False, False, False, True]
