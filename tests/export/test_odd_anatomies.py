"""Exports of encoders as pruning leaves them, of every family and layout.

`drawn.odd_encoder` has layers with two, one and no heads, widths of 0 and 1, blocks and a whole layer gone. An export
takes seconds, so that every file here serves several tests.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import slimvox
from drawn import anatomies, masks_for, odd_encoder, random_encoder
from missing_packages import exports
from slimvox import ExportResult, SpeechEncoder, export_encoder
from slimvox.checkpoint import write_slimvox_directory
from slimvox.evaluation.exported_upstream import ExportedUpstream
from slimvox.exporters import export_format
from slimvox.exporters.calibration import Int8Speech
from slimvox.exporters.exportable import ExportableModel
from slimvox.exporters.int8 import measured_errors
from slimvox.exporters.reference import Reference
from slimvox.exporters.signature import Signature
from slimvox.exporters.trace import trace
from slimvox.measure.benchmark.contenders import Contender, load_contender
from slimvox.pruning.surgery import slice_encoder
from slimvox.structures import Address
from slimvox.structures.anatomy import EncoderAnatomy

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def exported(directory: Path) -> ExportResult:
    return export_encoder(directory, mask=True)


def inputs(encoder: SpeechEncoder, *, masked: bool) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Waveforms and masks of several batch sizes and lengths, one frame among them."""
    shortest, hop = encoder.anatomy.receptive_field, encoder.anatomy.hop
    cases = []
    for batch, samples in ((1, shortest), (2, shortest + hop - 1), (1, shortest + hop), (3, 1_777)):
        lengths = torch.tensor([samples, max(shortest, samples // 2), 0][:batch]) if masked else samples
        mask = torch.arange(samples) < torch.as_tensor(lengths).view(-1, 1).expand(batch, 1)
        cases.append((torch.randn(batch, samples) * mask, mask))
    return cases


def assert_same(
    found: Any, encoder: SpeechEncoder, waveforms: torch.Tensor, mask: torch.Tensor | None
) -> None:
    """`found`: hidden states, the last one where the model is pre-norm, and the frame mask where there is a mask."""
    with torch.inference_mode():
        expected = encoder(waveforms, mask)
    states = [*expected.hidden_states, *([expected.last_hidden_state] if encoder.anatomy.pre_norm else [])]
    speech = expected.frame_mask.numpy()
    assert len(found) == len(states) + (mask is not None)
    if mask is not None:
        np.testing.assert_array_equal(found[-1], speech)
    for ours, theirs in zip(found, states, strict=False):
        np.testing.assert_allclose(ours[speech], theirs.numpy()[speech], atol=2e-4, rtol=1e-3)


@exports("onnx")
def test_padded_batches_of_any_length_from_onnxruntime(directory: Path, exported: ExportResult) -> None:
    encoder = slimvox.load(directory)
    assert [len(layer.heads) for layer in encoder.anatomy.layers] == [2, 1, 0, 0, 0]
    session = onnxruntime.InferenceSession(str(exported.path), providers=["CPUExecutionProvider"])
    for waveforms, mask in inputs(encoder, masked=True):
        given = {"waveforms": waveforms.numpy(), "attention_mask": mask.numpy()}
        assert_same(session.run(None, given), encoder, waveforms, mask)


@exports("onnx")
def test_int8_and_its_error(directory: Path, exported: ExportResult, tmp_path: Path) -> None:
    file = Path(shutil.copy(exported.path, tmp_path / "int8.onnx"))
    signature = Signature(layers="all", mask=True)
    reference = Reference(encoder=slimvox.load(directory), head=None, signature=signature)
    onnx_format = export_format("onnx")
    onnx_format.to_int8(file)
    clips = Int8Speech((), reference).error
    errors = measured_errors(onnx_format.open(file), reference, clips, "speech")
    assert [*errors.states] == [f"hidden_state_{index:02d}" for index in range(6)]
    assert all(1e-5 < error < 0.1 for error in errors.states.values())
    errors.check(0.05, force=False)


@exports("onnx")
def test_features_for_evaluation(directory: Path, exported: ExportResult) -> None:
    encoder, upstream = slimvox.load(directory), ExportedUpstream(exported.path, export_format("onnx"))
    waveforms = torch.randn(2, 1_500)
    with torch.inference_mode():
        expected = torch.stack(encoder(waveforms).hidden_states, 2)
    torch.testing.assert_close(upstream(waveforms), expected, atol=2e-4, rtol=1e-3)
    assert upstream.parameters == sum(parameter.numel() for parameter in encoder.parameters())


@pytest.mark.parametrize("backend", ["torch", "torch-bf16", "transformers"])
def test_the_benchmark_runs_it(backend: Any, directory: Path) -> None:
    contender = Contender(model=str(directory), backend=backend, name="odd")
    output: Any = load_contender(contender, threads=1).run(torch.randn(2, 1_500).numpy())
    assert len(output.hidden_states) == 6
    assert all(state.shape[0] == 2 and state.isfinite().all() for state in output.hidden_states)


@pytest.mark.parametrize(
    ("family", "pre_norm", "options"),
    [
        ("hubert", False, {}),
        ("wav2vec2", True, {"opset": 18}),
        ("wavlm", True, {"format": "torch-export", "mask": True}),
    ],
)
@exports("onnx")
def test_other_families_and_layouts(
    family: str, pre_norm: bool, options: dict[str, Any], tmp_path: Path
) -> None:
    encoder = odd_encoder(family, pre_norm=pre_norm)
    write_slimvox_directory(encoder, tmp_path / "model", kept_indices={}, model_card="")
    result = export_encoder(tmp_path / "model", **options)
    assert ("last_hidden_state" in result.outputs) == pre_norm
    assert result.worst_difference < 1e-4
    masked = "mask" in options
    for waveforms, mask in inputs(encoder, masked=masked):
        given = (waveforms, mask) if masked else (waveforms,)
        if "format" in options:
            found = [state.numpy() for state in torch.export.load(str(result.path)).module()(*given)]
        else:
            session = onnxruntime.InferenceSession(str(result.path), providers=["CPUExecutionProvider"])
            found = session.run(None, dict(zip(result.inputs, (each.numpy() for each in given), strict=True)))
        assert_same(found, encoder, waveforms, mask if masked else None)
    if "format" in options:
        files = {"slimvox.json": ""}
        torch.export.load(str(result.path), extra_files=files)
        assert json.loads(files["slimvox.json"])["downsample_rate"] == str(encoder.anatomy.hop)


@settings(max_examples=2, phases=[Phase.generate])
@given(data=st.data(), anatomy=anatomies(), masked=st.booleans())
@exports("torch-export")
def test_drawn_anatomies_are_traced_with_sizes_that_are_known(
    data: st.DataObject, anatomy: EncoderAnatomy, masked: bool
) -> None:
    """A size that torch takes for unknown (u0, u1...) cannot be compared with 1, the number of heads, say."""
    encoder = slice_encoder(random_encoder(anatomy, seed=0), data.draw(masks_for(anatomy))).encoder
    model = ExportableModel(encoder, layers="all")
    program = trace(model, mask=masked, shortest_samples=anatomy.receptive_field)
    sizes = {str(symbol) for symbol in program.range_constraints}
    # Clips and samples; the length of a mask is one of its own where nothing multiplies the waveforms by it.
    assert len(sizes) == 3 - (not masked or anatomy.normalize_waveform or anatomy.mel_bins > 0) and not [
        name for name in sizes if re.match(r"u\d", name)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "torch-export"])
@exports("onnx")
def test_an_encoder_cut_from_the_embedded_teacher(format: Any, tmp_path: Path) -> None:
    teacher = slimvox.load("embedded")
    kept = torch.Generator().manual_seed(0)
    masks = {Address("position", 0): (torch.rand(64, generator=kept) < 0.5).float()}
    for index, layer in enumerate(teacher.anatomy.layers):
        head = torch.zeros(len(layer.heads))
        head[torch.randperm(len(head), generator=kept)[: index % 4]] = 1.0
        masks[Address("head", index)] = head
        for name, size, share in (
            ("qk", layer.qk, 0.3),
            ("vo", layer.vo, 0.3),
            ("intermediate", layer.intermediate, 0.2),
        ):
            masks[Address(name, index)] = (torch.rand(size, generator=kept) < share).float()
    encoder = slice_encoder(teacher, masks).encoder
    assert {len(layer.heads) for layer in encoder.anatomy.layers} == {0, 1, 2, 3}
    write_slimvox_directory(encoder, tmp_path / "model", kept_indices={}, model_card="")
    result = export_encoder(tmp_path / "model", format=format, int8=format == "onnx")
    assert result.worst_difference < 1e-4
