"""The commands as a user types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import models
import slimvox
from hub_server import COMMIT, serving
from slimvox.cli.command import showing
from slimvox.cli.main import parse, run

FAST = [
    *("--recipe", "quick", "--max-steps", "3", "--device", "cpu", "--set"),
    *("data.min_seconds=0.5", "data.max_seconds=1.0", "data.seconds_per_batch=2.0"),
]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.directory(tmp_path_factory.mktemp("teacher"), "wavlm")


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speech")
    random = np.random.default_rng(0)
    for number in range(3):
        soundfile.write(folder / f"{number}.wav", 0.1 * random.standard_normal(16_000), 16_000)
    (folder / "broken.wav").write_bytes(b"RIFF nothing")
    (folder / "empty.flac").write_bytes(b"")
    soundfile.write(folder / "short.wav", np.ones(100), 16_000)
    return folder


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


def test_prune_inspect_encode(
    teacher: Path, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(["prune", str(teacher), str(speech), "--out", str(out), *FAST]) == 0
    text = said(capsys)
    assert "2 unreadable" in text or ("1 unreadable" in text and "1 empty" in text)
    assert "1 too short" in text and "written to" in text
    assert run(["inspect", str(out), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert {"parameters", "parameters_dense", "macs_10s", "macs_10s_dense", "layers"} <= set(data)
    assert data["parameters"] <= 0.28 * data["parameters_dense"]
    assert run(["inspect", str(out)]) == 0
    assert "layer 3" in said(capsys)
    assert run(["encode", str(out), str(speech / "0.wav"), "--out", str(tmp_path / "features")]) == 0
    assert (tmp_path / "features" / "0.npz").is_file()


def test_bad_input_is_one_sentence_and_exit_status_2(
    teacher: Path, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nothing").mkdir()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("years of work")
    out = ["--out", str(tmp_path / "out"), *FAST]
    cases = [
        (["prune", "/no/such/model", str(speech), *out], "there is no directory"),
        (["prune", str(speech), str(speech), *out], "no config.json"),
        (["prune", str(teacher), "/no/such/audio", *out], "/no/such/audio"),
        (["prune", str(teacher), str(tmp_path / "nothing"), *out], "nothing"),
        (["prune", str(teacher), *out], "no audio given"),
        (["prune", str(teacher), str(speech / "broken.wav"), *out], "unreadable"),
        (["prune", str(teacher), str(speech), *out, "--target-parameters", "0.01%"], "cannot be reached"),
        (["prune", str(teacher), str(speech), *FAST, "--out", str(tmp_path / "taken")], "not empty"),
        (["prune", str(teacher), str(speech), *FAST, "--out", "/proc/slimvox"], "cannot be written"),
        (["inspect", str(tmp_path / "nothing")], "no config.json"),
        (["encode", str(teacher), "/no/such/audio", *out[:2]], "/no/such/audio"),
    ]
    for arguments, message in cases:
        assert run(arguments) == 2, arguments
        text = said(capsys)
        assert message in text, (arguments, text)
        assert "Traceback" not in text
    assert (tmp_path / "taken" / "thesis.txt").read_text() == "years of work"
    assert not (tmp_path / "out").exists()


def test_a_wrong_flag_is_explained_by_the_parser() -> None:
    with pytest.raises(SystemExit) as stopped:
        run(["prune", "embedded", "audio", "--outt", "x"])
    assert stopped.value.code == 2


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['slimvox', '--help']\n"
        "import slimvox.cli\n"
        "try: slimvox.cli.main()\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"slimvox {slimvox.__version__}\n"


def test_revisions_on_the_hub(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(monkeypatch, tmp_path / "cache", model=teacher):
        assert run(["inspect", "someone/model", "--revision", COMMIT, "--json"]) == 0
        first = json.loads(capsys.readouterr().out)
        assert run(["inspect", f"someone/model@{COMMIT}", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == first
        for wrong in (["someone/model", "--revision", "v9"], ["someone/model@v9"]):
            assert run(["inspect", *wrong]) == 2
            assert "there is no revision 'v9'" in said(capsys)
    assert run(["inspect", str(teacher), "--revision", "v9"]) == 2
    assert "`--revision` is for models on the Hugging Face hub" in said(capsys)


def test_errors_name_flags_instead_of_parameters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "out")]
    for arguments, expected in (
        (["prune", "embedded", "x", *out, "--target-macs", "0"], "`--target-macs` must be a share"),
        (["benchmark", "embedded", "--seconds", "2,0"], "`--seconds[1]` must be at least 0.1"),
        (["inspect", "embedded", "--revision", "v9"], "`--revision` is for models"),
    ):
        assert run(arguments) == 2
        assert expected in said(capsys)
    command = parse(["compare", "model", "audio"])
    assert command.with_flags("`seconds`, `audio`, `x`") == "`--seconds`, `audio`, `x`"


def test_errors_in_tables_name_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not flags, although a flag has the same name."""
    (tmp_path / "audio.tsv").write_text("path\tseconds\na.wav\tlong\n")
    assert run(["compare", "embedded", str(tmp_path / "audio.tsv"), "--teacher", "embedded"]) == 2
    assert "`seconds` in line 2 of" in said(capsys)


def test_the_hub_is_quiet_unless_verbose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each repetition of a failed request is two warnings."""
    for arguments, level in ((["inspect", "embedded", "-v"], None), (["inspect", "embedded"], "error")):
        monkeypatch.setenv("HF_HUB_VERBOSITY", "restored at the end")
        monkeypatch.delenv("HF_HUB_VERBOSITY")
        assert run(arguments) == 0
        assert os.environ.get("HF_HUB_VERBOSITY") == level


def test_verbose_says_what_is_loaded(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(monkeypatch, tmp_path / "cache", model=teacher):
        assert run(["inspect", "someone/model"]) == 0
        assert "from the Hugging Face hub" not in caplog.text
        assert run(["inspect", "someone/model", "-v"]) == 0
        assert "someone/model: from the Hugging Face hub, revision main" in caplog.text


def test_a_repository_that_cannot_be_is_an_error_before_the_run(
    teacher: Path, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(["prune", str(teacher), str(speech), "--out", str(out), "--push-to-hub", "a/b/c", *FAST]) == 2
    assert "`a/b/c` is not a name of a repository on the Hugging Face hub" in said(capsys)
    assert not out.exists()


def test_a_pruned_encoder_is_pushed(
    teacher: Path,
    speech: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    with serving(monkeypatch, tmp_path / "cache") as hub:
        hub.uploads = tmp_path / "uploads"
        command = ["prune", str(teacher), str(speech), "--out", str(out), "--push-to-hub", "someone/small"]
        assert run([*command, "--token", "mine", *FAST]) == 0
        assert hub.tokens == {"Bearer mine"}
        assert "pushed to https://huggingface.co/someone/small" in said(capsys)
        uploaded = {file.relative_to(hub.uploads / "someone/small") for file in hub.uploads.rglob("*.*")}
        assert {"config.json", "kept_indices.json", "README.md", "model.safetensors"} <= {*map(str, uploaded)}
        assert all(len(file.parts) == 1 for file in uploaded)  # nothing of the run itself
        pushed, local = slimvox.load("someone/small"), slimvox.load(out)
        assert all((a == b).all() for a, b in zip(pushed.parameters(), local.parameters(), strict=True))


def test_brackets_in_a_name_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would be markup to rich, which prints the tables."""
    monkeypatch.chdir(tmp_path)
    with showing("a[b]/c[/b]d") as show:
        show("e[/f]")
    (tmp_path / "a[b]").mkdir()
    for name in ("small[v2]", "a[b]/c[/b]d"):
        models.directory(tmp_path / name, "wavlm")
        assert run(["inspect", name]) == 0
        assert name in said(capsys)
