"""`slimvox latency`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from measures import TABLE
from models import directory
from slimvox.cli.main import main
from slimvox.measure.latency import LatencyTable, prepare


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return directory(tmp_path / "model", "wavlm")


def measured(monkeypatch: pytest.MonkeyPatch, table: LatencyTable) -> list[dict[str, Any]]:
    """Let the measurement give a known table; returns the arguments that it gets."""
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(prepare, "measure_in_torch", lambda _, **options: asked.append(options) or table)
    return asked


def called(*words: object) -> None:
    with pytest.raises(SystemExit) as left:
        main(["latency", *map(str, words)])
    assert left.value.code == 0


def test_the_time_its_shares_and_the_next_command_are_printed(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = replace(TABLE, hardware="Abacus", dense=2e9)
    asked = measured(monkeypatch, table)
    called(model, "--seconds", 2, "--out", tmp_path / "my table.json")
    assert asked[0]["seconds"] == 2.0
    printed = capsys.readouterr().out
    assert f"{model}: dense: 2,000 ms for 1 s of audio in torch, 1 thread of Abacus" in printed
    assert "off by 5% (median)" in printed and "busy" not in printed
    shares = [int(part.split()[-1]) for part in printed.split("%") if part.rstrip()[-1].isdigit()]
    assert f"--latency-table '{tmp_path / 'my table.json'}'" in printed and shares
    dense = LatencyTable.from_dict(json.loads((tmp_path / "my table.json").read_text())["table"])
    assert dense == table


def test_a_busy_machine_is_named(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured(monkeypatch, replace(TABLE, error=0.31))
    called(model)
    printed = capsys.readouterr().out
    assert "off by 31% (median): the machine was probably busy" in printed and "written to" not in printed


def test_json_is_the_table(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured(monkeypatch, TABLE)
    called(model, "--json", "--out", tmp_path / "table.json")
    assert LatencyTable.from_dict(json.loads(capsys.readouterr().out)) == TABLE
    assert (tmp_path / "table.json").is_file()


def test_a_clip_that_the_model_cannot_encode_is_one_sentence(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for runtime in ("torch", "torch-bf16"):
        with pytest.raises(SystemExit) as left:
            main(["latency", str(model), "--seconds", "0.001", "--runtime", runtime])
        assert left.value.code == 2
        assert "must be finite and at least" in capsys.readouterr().err
