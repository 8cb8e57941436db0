"""Directories of earlier versions: `tests/data/format_N` was written, with `states.json` beside it, by the last version
that wrote format N. CONTRIBUTING.md states the policy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import slimvox
from slimvox.checkpoint import load_model
from slimvox.cli.main import run
from slimvox.pruning.recipe import load_recipe
from slimvox.pruning.run_directory import RunDirectory
from tiny_runs import make_run, make_speech

DATA = Path(__file__).parents[1] / "data"
FORMATS = sorted(path.name for path in DATA.glob("format_*"))


@pytest.fixture(params=FORMATS)
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(DATA / request.param, tmp_path / request.param))


def test_an_encoder_of_an_earlier_version_computes_what_it_did(directory: Path) -> None:
    encoder = slimvox.load(directory)
    waveform = 0.1 * torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        states = encoder(waveform).hidden_states
    expected = json.loads((directory / "states.json").read_text())
    assert len(states) == len(expected)
    for state, (mean, spread) in zip(states, expected, strict=True):
        assert float(state.mean()) == pytest.approx(mean, abs=1e-5)
        assert float(state.std()) == pytest.approx(spread, rel=1e-5)


def test_its_kept_indices_run_and_report_are_read(directory: Path, tmp_path: Path) -> None:
    loaded = load_model(directory)
    kept = loaded.kept_indices()
    assert kept is not None and kept.anatomy(loaded.encoder.dense_anatomy) == loaded.encoder.anatomy
    assert run(["report", str(directory), "--out", str(tmp_path / "report.html")]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "Query and key dimensions" in page and "relative error at the end" in page


def test_it_can_be_pruned_further(directory: Path, tmp_path: Path) -> None:
    speech = make_speech(tmp_path / "speech")
    result = make_run(tmp_path / "smaller", directory, speech, settings={"target.keep": 0.3})
    kept = load_model(tmp_path / "smaller").kept_indices()
    before = load_model(directory).kept_indices()
    assert kept is not None and before is not None
    for address, units in kept.units.items():
        assert set(units) <= set(before[address])
    assert result.parameters <= 0.3 * result.parameters_dense


def test_the_same_command_finds_its_run_finished(directory: Path) -> None:
    """Fields of the recipe that have been renamed since, or did not exist, do not make it another command."""
    fingerprint = json.loads((directory / "run" / "settings.json").read_text())["fingerprint"]
    assert fingerprint.pop("processes") == 1  # no part of today's
    old = fingerprint["recipe"]
    assert "l1_weight" in old["distillation"] and "position" not in old["structures"]
    given = {
        **{
            f"{section}.{field}": value
            for section in ("target", "gates", "distillation", "data", "prune", "finish")
            for field, value in old[section].items()
            if value is not None
        },
        "structures.attention": False,
    }
    same = {**fingerprint, "recipe": load_recipe("quick", given).to_dict()}
    other = {
        **fingerprint,
        "recipe": load_recipe("quick", {**given, "distillation.l1_weight": 2.0}).to_dict(),
    }
    with RunDirectory(path=directory).locked():
        with pytest.raises(slimvox.SlimvoxError, match="another command"):
            RunDirectory(path=directory).claim(other)
        assert RunDirectory(path=directory).claim(same)
