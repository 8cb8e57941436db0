"""A step is the same however its audio is divided, and is divided further when memory runs out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from slimvox.encoder import SpeechEncoder
from slimvox.pruning import micro_batches, stage
from slimvox.pruning.micro_batches import Division, MicroBatches
from slimvox.pruning.recomputation import recomputation
from slimvox.pruning.settings import GateSettings
from slimvox.pruning.student import Student
from slimvox.structures import structure_names
from slimvox.util.errors import SlimvoxError
from students import STILL, make_stage, make_student, make_teacher, one_step

CLIPS = torch.randn(5, 4800, generator=torch.Generator().manual_seed(3))
CLIP_SECONDS = 0.3


@pytest.fixture(scope="module")
def teacher() -> SpeechEncoder:
    return make_teacher()


@given(clips=st.integers(0, 50), samples=st.integers(1, 300_000), seconds=st.floats(0.01, 1000))
def test_parts_are_all_clips_in_order_as_evenly_as_they_fit(clips: int, samples: int, seconds: float) -> None:
    parts = Division(seconds=seconds).parts(clips, samples)
    assert [clip for part in parts for clip in range(clips)[part]] == list(range(clips))
    sizes = [part.stop - part.start for part in parts]
    if sizes:
        assert max(sizes) - min(sizes) <= 1 and min(sizes) >= 1
        assert max(sizes) == 1 or max(sizes) * samples <= seconds * 16_000 * (1 + 1e-6)
        # Fewer parts would be larger than allowed.
        fewest = -(-clips // max(1, int(seconds * 16_000 / samples + 1e-6)))
        assert len(sizes) == fewest


def step_of(
    teacher: SpeechEncoder, folder: Path, division: Division | None, **options: Any
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Gradients of a step of five clips, and what it logs."""
    gates = options.pop("gates", True)
    student = make_student(
        teacher,
        noise=0.3,
        structures=structure_names() if gates else (),
        initial_drop=0.3,
        initial_quadratic=20.0 if gates else None,
        weights={"relation": 1.5},
        **options,
    )
    stage = make_stage(
        teacher,
        student,
        folder,
        sparsity=0.4 if gates else None,
        gates=GateSettings(learning_rate=STILL, multiplier_learning_rate=STILL),
        learning_rate=STILL,
        gradient_clip=1e9,
        teacher_forcing=0.3,
    )
    if division is not None:
        stage.micro_batches = MicroBatches(division)
    seen: dict[str, Tensor] = {}
    stage.optimisers["weights"].register_step_pre_hook(
        lambda *_: seen.update(
            {n: p.grad.clone() for n, p in student.named_parameters() if p.grad is not None}
        )
    )
    values = one_step(stage, CLIPS)
    return seen, values


def assert_close(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, gradient in first.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(second[name], gradient, rtol=1e-5, atol=1e-5 * max(scale, 0.01))


@pytest.mark.parametrize("seconds", [CLIP_SECONDS, 2 * CLIP_SECONDS])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"masked_share": 0.4}, {"gates": False, "maps": True, "masked_share": 0.2}]
)
def test_gradients_and_losses_do_not_depend_on_the_division(
    seconds: float, recompute: bool, options: dict[str, Any], teacher: SpeechEncoder, tmp_path: Path
) -> None:
    whole, values = step_of(teacher, tmp_path, None, **options)
    divided, same = step_of(teacher, tmp_path, Division(seconds=seconds, recompute=recompute), **options)
    assert len(whole) > 50 and sum(float(each.abs().max()) > 1e-6 for each in whole.values()) > 40
    assert_close(whole, divided)
    assert same == pytest.approx(values, rel=1e-5, abs=1e-6)


@pytest.mark.skipif(
    not hasattr(micro_batches._C_LIBRARY, "malloc_trim"),
    reason="only glibc's heap can be asked to be trimmed",
)
def test_holes_of_the_heap_are_returned() -> None:
    blocks = [b"x" * 50_000 for _ in range(4000)]
    kept = blocks[::2]
    before = psutil.Process().memory_info().rss
    del blocks
    micro_batches.trim_heap()
    assert before - psutil.Process().memory_info().rss > 50e6
    assert len(kept) == 2000


@pytest.mark.parametrize(("clips", "times"), [(5, 0), (2, 3), (1, 5)])
def test_the_heap_is_trimmed_before_each_of_several_micro_batches(
    clips: int, times: int, teacher: SpeechEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trimmed = []
    monkeypatch.setattr(stage, "trim_heap", lambda: trimmed.append(True))
    step_of(teacher, tmp_path, Division(seconds=clips * CLIP_SECONDS))
    assert len(trimmed) == times


def test_recomputation_keeps_less(teacher: SpeechEncoder) -> None:
    """Bytes kept for the backward pass, weights aside."""
    student = make_student(teacher, structures=structure_names())
    wanted = teacher(CLIPS)
    weights = {each.untyped_storage().data_ptr() for each in student.parameters()}

    def kept(recompute: bool) -> int:
        storages: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        noise = student.draw_noise(len(CLIPS), wanted.hidden_states[0].shape[1], torch.Generator())
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            losses = student(CLIPS, wanted, noise=noise, recompute=recompute)
        del losses
        return sum(size for place, size in storages.items() if place not in weights)

    assert kept(True) < 0.6 * kept(False)


def test_recomputation_leaves_the_encoder_as_it_was(teacher: SpeechEncoder) -> None:
    def fail() -> None:
        with recomputation(teacher):
            assert "forward" in teacher.layers[0].__dict__
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not any("forward" in module.__dict__ for module in teacher.modules())


OUT_OF_MEMORY = [
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] data. DefaultCPUAllocator: can't allocate memory: you tried"
    ),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_a_step_that_runs_out_of_memory_is_repeated_in_smaller_parts(
    error: Exception, teacher: SpeechEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, values = step_of(teacher, tmp_path, None)
    forward, sizes = Student.forward, []

    def limited(self: Student, waveforms: Tensor, *arguments: Any, **options: Any) -> dict[str, Tensor]:
        sizes.append(len(waveforms))
        if len(waveforms) > 2 or len(sizes) == 4:  # the last part of the second attempt fails too
            raise error
        return forward(self, waveforms, *arguments, **options)

    monkeypatch.setattr(Student, "forward", limited)
    divided, same = step_of(teacher, tmp_path, None)
    assert sizes == [5, 1, 2, 2, 1, 1, 1, 1, 1]
    assert_close(whole, divided)
    assert same == pytest.approx(values, rel=1e-5, abs=1e-6)


def test_single_clips_that_do_not_fit_are_computed_again_and_then_are_one_sentence(
    teacher: SpeechEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[bool] = []

    def full(self: Student, *_: Any, recompute: bool, **__: Any) -> None:
        tried.append(recompute)
        raise MemoryError

    monkeypatch.setattr(Student, "forward", full)
    remembered: list[Division] = []
    stage = make_stage(teacher, make_student(teacher), tmp_path)
    stage.micro_batches = MicroBatches(Division(seconds=CLIP_SECONDS), remember=remembered.append)
    with pytest.raises(SlimvoxError, match=r"not enough memory for a single clip of 0\.3 s; set a lower"):
        one_step(stage, CLIPS)
    assert tried == [False, True] and remembered == [Division(seconds=CLIP_SECONDS, recompute=True)]
    stage.micro_batches = MicroBatches(Division(seconds=CLIP_SECONDS), may_recompute=False)
    with pytest.raises(SlimvoxError, match="allow activation checkpointing"):
        one_step(stage, CLIPS)


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    teacher: SpeechEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Student, *_: Any, **__: Any) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(Student, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        one_step(make_stage(teacher, make_student(teacher), tmp_path), CLIPS)
