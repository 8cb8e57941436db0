"""Every flag of every command with values that make no sense: one sentence, and never a traceback."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import tyro
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import models
from evaluation_tables import write_table
from slimvox.cli.main import Command, run

NUMBERS = ("-1", "0", "nan", "inf", "-inf", "1e308", "-1e308", "1e-308", "9" * 400, "", "x", "1,2", "none")
TEXTS = (
    "",
    " ",
    "x",
    "-1",
    "0",
    "nan",
    "inf",
    "1e308",
    "9" * 400,
    "%",
    "0%",
    "x" * 5000,
    "[[",
    "a=b",
    "~nosuchuser/x",
)
PATHS = (
    "",
    ".",
    "x" * 300,
    "/dev/null",
    "/dev/null/x",
    "/proc/x",
    "~nosuchuser/x",
    "\udcff\udcfe",
    "taken.txt",
)
OVERRIDES = (
    *("", "=", "a", "a=b", "prune=1", "prune.steps=", "ks=1", "ks.=1", ".steps=1", "nosuch.steps=1"),
    *("ks.steps=nan", "ks.steps=0", "ks.batch=" + "9" * 30, "ks.learning_rates=nan", "ks.learning_rates="),
    *(
        "ks.learning_rates=inf,0.1",
        "ks.gradient_clip=-1",
        "ks.projection=1e308",
        "ks.projection=999999999999",
    ),
    *("ks.optimiser=nosuch", "ks.balanced=yes", "ks.train_seconds=1e308", "ks.train_seconds=nan"),
    *("prune.steps=nan", "prune.steps=1e308", "prune.learning_rate=inf", "prune.learning_rate=nan"),
    *("target.keep=nan", "target.keep=1e308", "target.seconds=1e308", "target.round_to=0"),
    *("data.max_seconds=inf", "data.seconds_per_batch=1e308", "data.min_seconds=nan", "name=" + "[" * 5000),
    *("prune.steps=" + "[" * 5000, "gates.ramp_shape=1979-05-27", "distillation.layers=true"),
)
SETUP = {
    "prune": ("prune", "MODEL", "no-such-audio", "--out", "new", "--device", "cpu"),
    "inspect": ("inspect", "MODEL"),
    "encode": ("encode", "MODEL", "speech.wav", "--out", "features", "--device", "cpu"),
    "compare": ("compare", "MODEL", "speech.wav", "--teacher", "MODEL", "--device", "cpu"),
    "evaluate": (
        *("evaluate", "fbank", "--data", ".", "--manifest", "ks=table.tsv", "--cache", "cache"),
        *("--device", "cpu", "--set", "ks.steps=2", "ks.evaluations=1", "ks.learning_rates=0.01"),
    ),
    "benchmark": ("benchmark", "no-such-model"),
    "latency": ("latency", "no-such-model"),
    "export": ("export", "no-such-model"),
    "report": ("report", "no-such-run"),
    "figures": ("figures", "no-such-run", "--out", "figures"),
    "demo": ("demo", "--out", "taken"),
}
"""Arguments with which each command ends soon, whatever else it is told."""
COMMANDS = {
    next(extra.name for extra in annotated.__metadata__ if hasattr(extra, "name")): annotated.__origin__
    for annotated in typing.get_args(Command)
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("nonsense")
    models.directory(made / "model", "wavlm")
    noise = 0.1 * np.random.default_rng(0).standard_normal(4000)
    rows = []
    for number in range(9):
        soundfile.write(made / f"{number}.wav", noise * (1 + number), 16_000)
        split = ("train", "dev", "test")[number % 3]
        rows.append({"path": f"{number}.wav", "split": split, "label": "ab"[number % 2]})
    soundfile.write(made / "speech.wav", noise, 16_000)
    write_table(made / "table.tsv", rows)
    (made / "taken").mkdir()
    (made / "taken" / "thesis.txt").write_text("mine")
    (made / "taken.txt").write_text("mine")
    return made


def flags(command: Any) -> list[tuple[str, tuple[str, ...]]]:
    """Flags that take a value, with values to try."""
    found = []
    for field in dataclasses.fields(command):
        hint = typing.get_type_hints(command, include_extras=True)[field.name]
        name = f"--{field.name.replace('_', '-')}"
        text = str(hint)
        if field.name == "set":
            found.append((name, OVERRIDES))
        elif "Path" in text:
            found.append((name, PATHS))
        elif "bool" not in text and tyro.conf.Positional[str].__metadata__[0] not in hint_extras(hint):
            found.append((name, NUMBERS if "int" in text or "float" in text else TEXTS))
    return found


def hint_extras(hint: Any) -> tuple[Any, ...]:
    return getattr(hint, "__metadata__", ())


def test_every_command_is_tried() -> None:
    assert set(COMMANDS) == set(SETUP)
    assert all(flags(COMMANDS[name]) for name in SETUP)


def check(
    name: str, flag: str, values: tuple[str, ...], folder: Path, patch: pytest.MonkeyPatch, capsys: Any
) -> None:
    patch.chdir(folder)
    arguments = [str(folder / "model") if each == "MODEL" else each for each in SETUP[name]]
    try:
        status = run([*arguments, flag, *values])
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    said = " ".join(capsys.readouterr().err.split())
    assert status in (0, 2), said
    assert status == 0 or "error:" in said or "helptext" in said, said
    assert (folder / "taken.txt").read_text() == (folder / "taken" / "thesis.txt").read_text() == "mine"


# The fixtures hold nothing from one example to the next.
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_nonsense_is_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from([each for each in SETUP if flags(COMMANDS[each])]))
    flag, values = data.draw(st.sampled_from(flags(COMMANDS[name])))
    value = data.draw(st.sampled_from(values))
    check(name, flag, (value,), folder, monkeypatch, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETUP)
def test_all_nonsense_is_one_sentence(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for flag, values in flags(COMMANDS[name]):
        for value in values:
            check(name, flag, (value,), folder, monkeypatch, capsys)


@pytest.mark.parametrize("value", ["", "~nosuchuser/x", "x" * 5000, "\udcff", "[red]", "/dev/null"])
@pytest.mark.parametrize("name", ["inspect", "encode", "compare", "report", "figures"])
def test_a_model_or_audio_that_makes_no_sense_is_one_sentence(
    name: str, value: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    rest = [str(folder / "model") if each == "MODEL" else each for each in SETUP[name][2:]]
    tried = [[name, value, *rest]]
    if name in ("encode", "compare"):
        tried.append([name, str(folder / "model"), value, *rest[1:]])
    for arguments in tried:
        assert run(arguments) == 2
        assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("flag", ["--seed", "--max-steps", "--checkpoint-seconds"])
def test_a_flag_is_named_as_it_is_typed(
    flag: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    check("prune", flag, ("-1",), folder, monkeypatch, capsys)
    assert run([*SETUP["prune"], flag, "-1"]) == 2
    assert f"`{flag}` must be at least" in capsys.readouterr().err
