"""A structure defined outside the package goes through everything that iterates over structures."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import models
import slimvox
from extending.example_parts import WholeLayers
from slimvox.cli.main import run
from slimvox.pruning.gates import Gates
from slimvox.pruning.masks import masked_forward
from slimvox.pruning.surgery import slice_encoder
from slimvox.structures import Address, register_structure, structure_names, unregister_structure
from slimvox.structures.kept_indices import KeptIndices
from tiny_runs import ENCODER, make_run, make_speech, make_teacher


@pytest.fixture(autouse=True)
def layers() -> Iterator[None]:
    register_structure(WholeLayers())
    yield
    unregister_structure("layer")


@pytest.mark.parametrize("layout", models.LAYOUTS)
def test_the_law_of_surgery_holds(layout: str, tmp_path: Path) -> None:
    encoder = slimvox.load(models.directory(tmp_path / layout, "wavlm", layout, **ENCODER)).double()
    gates = Gates(encoder.anatomy, structure_names(), initial_drop=0.3)
    generator = torch.Generator().manual_seed(1)
    waveforms = torch.randn(2, 4000, dtype=torch.float64)
    gone = 0
    for _ in range(8):
        masks = {address: mask.detach().double() for address, mask in gates.sample(generator).items()}
        result = slice_encoder(encoder, masks)
        for index, layer in enumerate(result.encoder.anatomy.layers):
            if not result.kept[Address("layer", index)]:
                gone += 1
                assert not layer.attention and not layer.feed_forward
        with torch.no_grad():
            masked = masked_forward(copy.deepcopy(encoder), masks, waveforms).hidden_states
            sliced = result.encoder(waveforms).hidden_states
        for a, b in zip(masked, sliced, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
        assert sum(p.numel() for p in result.encoder.parameters()) == result.encoder.parameter_count
    assert gone


def test_a_run_prunes_whole_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher, speech = make_teacher(tmp_path / "teacher"), make_speech(tmp_path / "speech")
    out = tmp_path / "out"
    only_layers = {f"structures.{name}": name in ("layer", "intermediate") for name in structure_names()}
    result = make_run(out, teacher, speech, settings={**only_layers, "target.keep": 0.7})
    dense = slimvox.load(teacher).anatomy
    kept = KeptIndices.from_dict(json.loads((out / "kept_indices.json").read_text()), dense)
    assert kept.anatomy(dense) == result.encoder.anatomy == slimvox.load(out).anatomy
    assert any(address.structure == "layer" for address in kept.units)
    log = [json.loads(line) for line in (out / "run" / "log.jsonl").read_text().splitlines()]
    assert "layer" in log[0]["gates"]
    assert run(["inspect", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["structures"]["layer"]["title"] == "Transformer layers"
    assert run(["report", str(out), "--out", str(tmp_path / "report.html")]) == 0
    assert "Transformer layers" in (tmp_path / "report.html").read_text()
    for control in ("magnitude", "top-layers", "random"):
        again = make_run(
            tmp_path / control,
            teacher,
            speech,
            settings={**only_layers, "target.keep": 0.7},
            control=control,
        )
        assert again.parameters <= 0.7 * again.parameters_dense
