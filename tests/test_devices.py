"""Everything that uses a device does so on each GPU of this machine, or with `--device cpu` on the CPU."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest
import torch

import slimvox
from missing_packages import exports
from slimvox.costs import CostContext, cost_kind
from slimvox.encoder import SpeechEncoder
from slimvox.encoder.backend import record_choices
from slimvox.measure.latency import real_time_factors
from small_encoders import pruned, states
from students import make_teacher as random_teacher
from tiny_runs import make_run, make_speech, make_teacher

LENGTHS = (16_000, 9_000)


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions in float32 on GPUs too, where torch has them in TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny teacher and a little audio."""
    folder = tmp_path_factory.mktemp("devices")
    make_teacher(folder / "teacher")
    make_speech(folder / "speech")
    return folder


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    waveforms = torch.randn(2, max(LENGTHS), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(max(LENGTHS))[None] < torch.tensor(LENGTHS)[:, None]
    return waveforms * mask, mask


@pytest.mark.parametrize("family", ["wavlm", "hubert", "data2vec-audio"])
@pytest.mark.parametrize("layout", ["base", "large"])
def test_hidden_states_are_those_of_the_cpu(device: str, family: str, layout: str) -> None:
    encoder = random_teacher(family=family, layout=layout)
    waveforms, mask = batch()
    with torch.inference_mode():
        expected = states(encoder, waveforms, mask)
        output = states(copy.deepcopy(encoder).to(device), waveforms.to(device), mask.to(device))
    assert output.device.type == device
    torch.testing.assert_close(output.cpu(), expected, rtol=1e-3, atol=1e-3)


def test_a_pruned_encoder_is_that_of_the_cpu(device: str) -> None:
    encoder, (waveforms, _) = pruned(), batch()
    with torch.inference_mode():
        expected = states(encoder, waveforms)
        output = states(copy.deepcopy(encoder).to(device), waveforms.to(device))
    torch.testing.assert_close(output.cpu(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
@pytest.mark.parametrize("control", ["projection", "lagrangian"])
def test_a_run(device: str, precision: str, control: str, folder: Path, tmp_path: Path) -> None:
    """Both stages, the cut between them and the measuring after them."""
    if precision == "fp16" and device == "cpu":
        pytest.skip("fp16 is for GPUs")
    if precision == "bf16" and device == "mps":
        pytest.skip("bf16 autocast is not what MPS is fast in")
    settings = {
        "gates.sparsity_control": control,
        "prune.teacher_forcing": 0.5,
        "distillation.masked_share": 0.1,
        "distillation.weights.relation": 0.5,
        "prune.matrix_optimiser": "muon",
    }
    if precision == "fp16":
        # The first steps overflow, and are skipped, until the loss is scaled by little enough.
        settings |= {"prune.steps": 20, "finish.steps": 20}
    result = make_run(
        tmp_path / "out",
        folder / "teacher",
        folder / "speech",
        settings=settings,
        device=device,
        precision=precision,
    )
    log = [json.loads(line) for line in (tmp_path / "out" / "run" / "log.jsonl").read_text().splitlines()]
    assert {record["stage"] for record in log} == {"prune", "finish"}
    assert all(math.isfinite(record["loss"]) for record in log)
    assert result.parameters <= 0.28 * result.parameters_dense
    assert next(result.encoder.parameters()).device.type == "cpu"
    machine = json.loads((tmp_path / "out" / "run" / "outcome.json").read_text())["environment"]
    assert machine["device"] == (torch.cuda.get_device_name() if device == "cuda" else device)
    assert result.distance_after_finish is not None and result.distance_after_finish.relative_error < 3


def test_half_precision_is_left_where_it_is_slower(device: str) -> None:
    encoder, waveforms = pruned().to(device), batch()[0].to(device)
    with record_choices() as choices, torch.autocast(device, torch.bfloat16), torch.inference_mode():
        encoder(waveforms)
    assert ("" in choices.get("positional convolution in float32", ())) == (device == "cuda")


def test_features_are_those_of_the_cpu(device: str, folder: Path) -> None:
    audio = sorted((folder / "speech").glob("*.wav"))[:3]
    expected = slimvox.encode(audio, folder / "teacher", device="cpu")
    for ours, theirs in zip(slimvox.encode(audio, folder / "teacher", device=device), expected, strict=True):
        for state, same in zip(ours, theirs, strict=True):
            torch.testing.assert_close(state.cpu(), same, rtol=1e-3, atol=1e-3)


def test_an_encoder_is_saved_from_a_device_and_loaded_onto_it(device: str, tmp_path: Path) -> None:
    encoder = pruned().to(device)
    encoder.save_pretrained(tmp_path / "saved")
    loaded = SpeechEncoder.from_pretrained(tmp_path / "saved", device=device)
    waveforms = batch()[0].to(device)
    assert {each.device.type for each in loaded.state_dict().values()} == {device}
    with torch.inference_mode():
        torch.testing.assert_close(states(loaded, waveforms), states(encoder, waveforms))


@exports("onnx")
def test_an_encoder_on_a_device_is_exported(device: str, tmp_path: Path) -> None:
    encoder = pruned().to(device)
    result = slimvox.export(encoder, tmp_path / "encoder.onnx")
    assert result.path.stat().st_size > 0
    assert {each.device.type for each in encoder.parameters()} == {device}


def test_times_are_measured_on_a_device(device: str) -> None:
    encoder = pruned().to(device)
    (factor,) = real_time_factors({"pruned": encoder}, seconds=0.5, rounds=2).values()
    assert 0 < factor < math.inf
    anatomy = encoder.anatomy
    context = CostContext(
        dense=anatomy, seconds=0.2, device=torch.device(device), on_progress=lambda line: None
    )
    cost = cost_kind("latency").prepare(context)
    assert cost.of(anatomy) > 0
