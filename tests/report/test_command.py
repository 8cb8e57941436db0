"""`slimvox report` as a user types it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import slimvox
from score_files import write_scores
from slimvox.cli.main import run


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


def test_a_report_is_written_and_replaced(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "report.html"
    assert run(["report", str(runs / "learned"), "--out", str(out)]) == 0
    assert "learned: written to" in said(capsys)
    first = out.read_bytes()
    assert first.startswith(b"<!doctype html>")
    assert run(["report", str(runs / "learned"), "--out", str(out)]) == 0
    assert out.read_bytes() == first
    assert run(["report", str(runs), "--out", str(out)]) == 0
    assert b"2 runs compared" in out.read_bytes()
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]


def test_a_report_is_made_from_python(runs: Path, tmp_path: Path) -> None:
    report = slimvox.make_report(str(runs / "learned"), str(tmp_path / "page.html"))
    assert report.runs == ("learned",) and report.path.read_bytes().startswith(b"<!doctype html>")
    assert slimvox.make_report([runs / "learned", runs], tmp_path / "page.html").runs == ("learned", "random")


def test_scores_in_a_run_are_found(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "learned", tmp_path / "learned")
    write_scores(tmp_path / "learned" / "scores", "whatever", {"er": 61.2}, parameters=1)
    assert run(["report", str(tmp_path / "learned"), "--out", str(tmp_path / "page.html")]) == 0
    assert "61.2 %" in (tmp_path / "page.html").read_text()


def test_bad_input_is_one_sentence_and_leaves_nothing(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learned = str(runs / "learned")
    (tmp_path / "empty").mkdir()
    (tmp_path / "thesis.html").write_text("<p>years of work")
    (tmp_path / "notes.json").write_text("{}")
    for name in ("log", "settings", "config", "outcome"):
        shutil.copytree(runs / "learned", tmp_path / f"bad-{name}")
    log = tmp_path / "bad-log" / "run" / "log.jsonl"
    log.write_text("nonsense\n" + log.read_text())
    (tmp_path / "bad-settings" / "run" / "settings.json").write_text("[1]")
    config = json.loads((runs / "learned" / "config.json").read_text())
    (tmp_path / "bad-config" / "config.json").write_text(json.dumps({**config, "anatomy": {}}))
    (tmp_path / "bad-outcome" / "run" / "outcome.json").write_text("{")
    mixed = write_scores(tmp_path / "mixed", "a", {"pr": 1.0}, parameters=1)
    write_scores(mixed, "b", {"ks": 1.0}, parameters=1)
    cases = [
        ([], "no run given"),
        (["/no/such/run"], "there is no /no/such/run"),
        ([str(tmp_path / "notes.json")], "is a file"),
        ([str(tmp_path / "empty")], "holds no run of slimvox"),
        ([str(tmp_path / "bad-log")], "damaged in line 1"),
        ([str(tmp_path / "bad-settings")], "settings.json must hold a JSON object"),
        ([str(tmp_path / "bad-config")], "config.json is damaged"),
        ([str(tmp_path / "bad-outcome")], "outcome.json is damaged"),
        ([learned, "--out", str(tmp_path / "empty")], "is a directory"),
        ([learned, "--out", str(tmp_path / "thesis.html")], "was not written by slimvox report"),
        ([learned, "--out", "/proc/slimvox/page.html"], "cannot be written"),
        ([learned, "--scores", str(tmp_path / "nowhere")], "there is no folder"),
        ([learned, "--scores", str(tmp_path / "empty")], "has no scores"),
        ([learned, "--scores", str(mixed)], "mixes the scores"),
        ([learned, "--benchmark", str(tmp_path / "none.json")], "there is no file"),
        ([learned, "--benchmark", str(tmp_path / "notes.json")], "not a result of `slimvox benchmark"),
    ]
    for arguments, message in cases:
        out = tmp_path / "page.html"
        where = [] if "--out" in arguments else ["--out", str(out)]
        assert run(["report", *arguments, *where]) == 2, arguments
        text = said(capsys)
        assert message in text and "Traceback" not in text and text.count("error:") == 1, text
        assert not out.exists()
    assert (tmp_path / "thesis.html").read_text() == "<p>years of work"
