"""ExecuTorch programs of encoders as pruning leaves them, and the crops that they need."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import slimvox
from drawn import odd_encoder, random_encoder
from missing_packages import exports, hide_packages
from slimvox import SlimvoxError, export
from slimvox.checkpoint import write_slimvox_directory
from slimvox.encoder import SpeechEncoder
from slimvox.evaluation.upstreams import load_upstream
from slimvox.exporters import executorch_file, export_format
from slimvox.exporters.crop import crops_as_slices, pad
from slimvox.exporters.executorch_file import longest_samples, trace_one_clip
from slimvox.exporters.reference import Reference
from slimvox.exporters.signature import Signature
from slimvox.structures.parts import ConvAnatomy, dense_layer
from small_encoders import wavlm


@pytest.mark.parametrize("amounts", [(-1, 2), (0, -3, -2, 2), (0, 0, 1, -2), (0, 0, -2, -1), (0, 0, 0, 0)])
def test_slices_crop_as_negative_padding_does(amounts: tuple[int, ...]) -> None:
    x = torch.randn(2, 5, 7)
    with crops_as_slices():
        torch.testing.assert_close(pad(x, amounts), F.pad(x, amounts), atol=0, rtol=0)
    torch.testing.assert_close(pad(x, amounts), F.pad(x, amounts), atol=0, rtol=0)


def test_the_extra_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_packages(monkeypatch, "executorch")
    with pytest.raises(SlimvoxError, match=r'ExecuTorch needs executorch, which .*"slimvox\[executorch\]"$'):
        export("embedded", tmp_path / "encoder.pte", format="executorch")
    with pytest.raises(SlimvoxError, match=r'"slimvox\[executorch\]"$'):
        slimvox.benchmark("embedded", backends=["executorch"])
    assert not list(tmp_path.iterdir())


def encoder_at_50_hz() -> SpeechEncoder:
    """A small encoder with the strides of the real front ends, and fewer taps than frames in 30 s."""
    shapes = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))
    anatomy = wavlm(
        convolutions=tuple(
            ConvAnatomy(channels=4, kernel=kernel, stride=stride) for kernel, stride in shapes
        ),
        position_kernel=64,
        layers=(dense_layer(heads=4, head_width=8, intermediate=8),),
    )
    return random_encoder(anatomy, 0)


@exports("torch-export")
def test_memory_is_planned_for_the_tensors_of_the_longest_clip() -> None:
    from torch.utils._sympy.value_ranges import bound_sympy

    reference = Reference(
        encoder=encoder_at_50_hz(), head=None, signature=Signature(layers="all", mask=False)
    )
    longest = longest_samples(reference)
    assert longest == 480_000
    program = trace_one_clip(reference, longest).run_decompositions()
    ((symbol, lengths),) = program.range_constraints.items()
    assert lengths.upper == longest
    sizes = [
        node.meta["val"].numel() for node in program.graph.nodes if torch.is_tensor(node.meta.get("val"))
    ]
    expressions = [size.node.expr for size in sizes if isinstance(size, torch.SymInt)]
    assert len(expressions) > 50
    for expression in expressions:
        planned = bound_sympy(expression, program.range_constraints).upper
        assert planned <= 1.02 * expression.subs(symbol, longest), expression


@exports("executorch")
def test_a_program_takes_clips_of_up_to_30_seconds(tmp_path: Path) -> None:
    encoder = encoder_at_50_hz()
    write_slimvox_directory(encoder, tmp_path / "encoder", kept_indices={}, model_card="")
    program = export_format("executorch").open(export(tmp_path / "encoder", format="executorch").path)
    for samples in (400, 719, 720, 1_600, 20_879, 20_880, 21_200, 160_001, 480_000):
        waveforms = 0.1 * torch.randn(1, samples)
        with torch.inference_mode():
            expected = encoder(waveforms).hidden_states
        for ours, theirs in zip(program(waveforms.numpy()), expected, strict=True):
            torch.testing.assert_close(torch.from_numpy(ours), theirs, atol=1e-4, rtol=1e-4)


@exports("executorch")
def test_a_program_gives_the_hidden_states_of_torch_at_any_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        executorch_file, "LONGEST_SECONDS", 0.25
    )  # 20 samples to a frame: 30 s need gigabytes
    write_slimvox_directory(odd_encoder(), tmp_path / "odd", kept_indices={}, model_card="")
    exported = export(tmp_path / "odd", format="executorch")
    assert exported.worst_difference < 1e-4 and exported.path == tmp_path / "odd" / "encoder.pte"
    program = export_format("executorch").open(exported.path, threads=1)
    assert tuple(program.outputs) == exported.outputs and program.metadata["precision"] == "float32"
    ours, theirs = load_upstream(exported.path), load_upstream(tmp_path / "odd")
    waveforms = torch.randn(2, 1_501)
    first = ours(waveforms)
    torch.testing.assert_close(first, theirs(waveforms), atol=2e-4, rtol=1e-3)
    copy = first.clone()
    ours(torch.randn(1, 900))
    np.testing.assert_array_equal(first.numpy(), copy.numpy(), "a later run must not overwrite")
    with pytest.raises(SlimvoxError, match="takes clips of up to 4000 samples, but one has 4001"):
        ours(torch.randn(1, 4_001))
    (tmp_path / "broken.pte").write_bytes(b"not a program")
    with pytest.raises(SlimvoxError, match=r"ExecuTorch cannot read .*broken\.pte"):
        load_upstream(tmp_path / "broken.pte")
