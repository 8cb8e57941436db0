"""`slimvox figures` as a user types it."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

import slimvox
from missing_packages import hide_packages
from score_files import write_benchmark
from slimvox.cli.main import run


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_figure_1_needs_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "figures"
    assert run(["figures", "--out", str(out)]) == 0
    assert "figure2, figure3 and pareto are skipped: no run was given." in said(capsys)
    assert names(out) == ["figure1.png", "figure1.svg"]
    assert ElementTree.parse(out / "figure1.svg").getroot().tag.endswith("svg")
    assert (out / "figure1.png").read_bytes().startswith(b"\x89PNG")
    first = (out / "figure1.svg").read_bytes()
    assert run(["figures", "--out", str(out)]) == 0
    assert (out / "figure1.svg").read_bytes() == first


def test_figures_are_drawn_from_python(runs: Path, tmp_path: Path) -> None:
    drawn = slimvox.draw_figures(str(runs / "a"), out=str(tmp_path), quality="distance")
    assert [path.stem for path in drawn.files[::2]] == ["figure1", "figure2", "pareto"]
    assert all(path.is_file() for path in drawn.files) and "figure3 is skipped" in drawn.remarks[0]


def test_runs_give_every_figure(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speeds = {str(runs / name): 2.0 for name in ("a", "b", "plain", "large")}
    times = write_benchmark(tmp_path / "speed.json", speeds, {})
    out = tmp_path / "figures"
    assert run(["figures", str(runs), "--out", str(out), "--benchmark", str(times)]) == 0
    assert "skipped" not in said(capsys)
    every = [
        f"{name}.{suffix}"
        for name in ("figure1", "figure2", "figure3", "pareto")
        for suffix in ("png", "svg")
    ]
    assert names(out) == every
    assert run(["figures", str(runs / "a"), "--out", str(tmp_path / "some")]) == 0
    text = said(capsys)
    assert "figure3 is skipped" in text and "no panel for speed" in text
    assert "figure3.svg" not in names(tmp_path / "some")
    assert run(["figures", str(runs / "a"), "--out", str(tmp_path / "none"), "--quality", "pr"]) == 0
    text = said(capsys)
    assert "Left out, with no pr measured: a." in text and "figure2 and pareto are skipped" in text


def test_bad_input_is_one_sentence_and_leaves_nothing(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    out = tmp_path / "out"
    cases = [
        (["/no/such/run", "--out", str(out)], "there is no /no/such/run"),
        ([str(runs), "--out", str(out), "--quality", "beauty"], "`--quality` must be one of"),
        ([str(runs), "--out", str(tmp_path / "file")], "is a file"),
        ([str(runs), "--out", "/proc/slimvox"], "cannot be written"),
        ([str(runs), "--out", str(out), "--scores", str(tmp_path)], "has no scores"),
    ]
    for arguments, message in cases:
        assert run(["figures", *arguments]) == 2
        text = said(capsys)
        assert message in text and text.count("error:") == 1, text
    hide_packages(monkeypatch, "matplotlib")
    assert run(["figures", "--out", str(out)]) == 2
    assert 'pip install "slimvox[figures]"' in said(capsys)
    assert not out.exists() and (tmp_path / "file").read_text() == "mine"
