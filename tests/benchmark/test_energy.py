"""Energy that a measurement used, from the counters of the processor."""

from __future__ import annotations

from pathlib import Path

import pytest

from slimvox.measure.benchmark import energy


def test_energy_is_what_all_packages_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    assert energy.read_counters() == {} and energy.joules_since({}) is None
    for name, used in (("intel-rapl:0", 9_000_000), ("intel-rapl:1", 500), ("intel-rapl:0:0", 7)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{used}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("10000000\n")
    before = energy.read_counters()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("2000000")  # once round
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("1000500")
    (tmp_path / "intel-rapl:0:0" / "energy_uj").write_text("5000000")
    assert energy.joules_since(before) == pytest.approx(3.0 + 1.0)
