"""The commands and the Python code of README.md and docs/ work as they are written.

Each block is run in a folder of its own with a few names replaced (`REPLACED`) and the work made small (`SMALLER`), or
is in `NOT_RUN` with the reason; its commands are parsed all the same.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import models
import whisper_models
from evaluation_tables import write_table
from missing_packages import exports
from slimvox.cli.main import Command, run
from slimvox.cli.main import parse as parse_words
from tiny_runs import SETTINGS, make_speech, make_teacher

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GUIDES = {"README.md", "index.md", "prune.md", "whisper.md", "evaluation.md", "deploy.md", "how-it-works.md"}
"""Pages that tell users what to type."""
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

REPLACED = {
    "microsoft/wavlm-base-plus": "teacher",
    "openai/whisper-base": "whisper",
    "/data/speech": "speech",
    "my-finetuned-wavlm": "finetuned",
    "--runtime onnx-int8 --threads 4": "--threads 1 --seconds 0.5",
    '"embedded", "speech/", "runs/small"': '"teacher", "speech/", "runs/second"',
    'target_parameters="28%")': 'target_parameters="28%", recipe="quick", overrides=SETTINGS, device="cpu")',
}
SMALLER = {
    "prune": ["--recipe", "quick", "--set", *(f"{name}={value}" for name, value in SETTINGS.items())],
    "compare": ["--seconds", "2"],
    "evaluate": ["--cache", "cache", "--set", "ks.steps=2", "ks.evaluations=1"],
}
"""Arguments that are added to a command, so that it takes a second."""
NOT_RUN = {
    "pip install .": "needs the network",
    "make demo": "makes an environment from the network; its command is run by tests/cli/test_demo_command.py",
    "make test": "makes an environment from the network, and would run this test",
    "slimvox demo": "takes minutes; run by tests/cli/test_demo_command.py",
    "slimvox export": "takes half a minute; run by the slow test below",
    "slimvox benchmark": "measures for minutes, in tests/benchmark",
    "slimvox prune microsoft/wavlm-base-plus /data/speech --out runs/laptop": "how fast a tiny model can become"
    " depends on the machine; run by tests/pruning/test_target_speed.py with a known table",
    "slimvox evaluate runs/small --data sets/": "the data of mini-SUPERB are not here",
    "slimvox evaluate runs/small --against": "the data of mini-SUPERB are not here",
    "slimvox evaluate embedded --data DIR": "the data of mini-SUPERB are not here",
    "slimvox evaluate fbank --data DIR": "the data of mini-SUPERB are not here",
    "slimvox evaluate random:embedded --data DIR": "the data of mini-SUPERB are not here",
    "slimvox evaluate runs/small --suite official": "the official corpora are not here",
    "slimvox evaluate runs/small/encoder-int8.onnx": "the data of mini-SUPERB are not here",
}
"""Beginnings of command lines."""
FOREIGN_FLAGS = {"--nproc-per-node", "--module", "--help"}
"""Flags of torchrun and accelerate, and one that every command has."""


@dataclass(frozen=True)
class Block:
    page: str
    number: int
    language: str
    text: str

    @property
    def lines(self) -> list[str]:
        """Command lines without their comments."""
        return [line.split("  #")[0].strip() for line in self.text.splitlines() if line.strip()]


BLOCKS = [
    Block(page.name, number, match[1], match[2])
    for page in PAGES
    for number, match in enumerate(FENCE.finditer(page.read_text(encoding="utf-8")))
]


def reason(line: str) -> str | None:
    return next((why for start, why in NOT_RUN.items() if line.startswith(start)), None)


def parse(line: str) -> Any:
    """The command of a line, without running it."""
    words = shlex.split(line, comments=True)
    assert words[0] == "slimvox", line
    return parse_words(words[1:])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the pages name, and a pruned encoder in runs/small."""
    folder = tmp_path_factory.mktemp("documented")
    teacher = make_teacher(folder / "teacher")
    for name in ("speech", "english", "german", "AUDIO"):
        make_speech(folder / name)
    shutil.copy(folder / "speech" / "00.wav", folder / "recording.flac")
    finetuned = models.model("wavlm", head="ctc", **_tiny())
    finetuned.save_pretrained(folder / "finetuned")
    rows = []
    for number, path in enumerate(sorted((folder / "AUDIO").iterdir())):
        split = ("train", "dev", "test")[number % 3]
        rows.append({"path": path.name, "split": split, "label": "ab"[number // 3 % 2]})
    write_table(folder / "commands.tsv", rows)
    write_table(
        folder / "clips.tsv", [{"path": row["path"], "split": "test", "text": "hello"} for row in rows]
    )
    whisper_models.recogniser(folder / "whisper")
    assert teacher.is_dir()
    return folder


def _tiny() -> dict[str, Any]:
    from tiny_runs import ENCODER

    return ENCODER


def run_shell(line: str, folder: Path) -> None:
    for name, replacement in REPLACED.items():
        line = line.replace(name, replacement)
    words = shlex.split(line, comments=True)[1:]
    expanded: list[str] = []
    for word in words:
        found = sorted(str(path.relative_to(folder)) for path in folder.glob(word)) if "*" in word else [word]
        expanded += found
    assert run([*expanded, *SMALLER.get(words[0], [])]) == 0, line


def test_every_block_is_shell_or_python() -> None:
    assert {block.language for block in BLOCKS} == {"sh", "python"}
    assert len(BLOCKS) >= 8 and {block.page for block in BLOCKS} <= GUIDES


@pytest.mark.parametrize(
    "line",
    sorted(
        {line for block in BLOCKS for line in block.lines if line.removeprefix("# ").startswith("slimvox ")}
    ),
)
def test_every_command_line_parses(line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    parse(line.removeprefix("# ").split("   ")[0])


def test_every_command_line_is_run_or_has_a_reason() -> None:
    lines = [line for block in BLOCKS if block.language == "sh" for line in block.lines]
    assert all(line.startswith("slimvox ") or reason(line) for line in lines)
    assert all(any(line.startswith(start) for line in lines) for start in NOT_RUN), (
        "no reason without a command"
    )


def test_every_flag_on_the_pages_is_a_flag_of_a_command() -> None:
    import dataclasses
    import typing

    fields = [
        field for command in typing.get_args(Command) for field in dataclasses.fields(command.__origin__)
    ]
    names = {field.name.replace("_", "-") for field in fields}
    # A switch that is on by default is turned off by --no-SWITCH.
    negated = {field.name.replace("_", "-") for field in fields if field.default is True}
    known = {f"--{name}" for name in names} | {f"--no-{name}" for name in negated}
    for page in (page for page in PAGES if page.name in GUIDES):
        named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", page.read_text(encoding="utf-8")))
        assert named - known - FOREIGN_FLAGS == set(), page


def test_the_readmes_commands_run_in_their_order(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(world)
    for block in BLOCKS:
        if block.language == "sh":
            for line in block.lines:
                if reason(line) is None:
                    run_shell(line, world)
    assert (world / "features" / "recording.npz").is_file()
    assert (world / "report.html").is_file() and any((world / "figures").glob("*.svg"))


def test_the_readmes_python_runs(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    if not (world / "runs" / "small").is_dir():
        run_shell("slimvox prune microsoft/wavlm-base-plus /data/speech --out runs/small", world)
    if not (world / "runs" / "whisper").is_dir():
        run_shell("slimvox prune openai/whisper-base /data/speech --out runs/whisper", world)
    noise = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    scope: dict[str, Any] = {"SETTINGS": SETTINGS, "waveform": noise}
    ran = 0
    for block in BLOCKS:
        if block.language == "python" and "onnxruntime" not in block.text:
            text = block.text
            for name, replacement in REPLACED.items():
                text = text.replace(name, replacement)
            exec(compile(text, f"{block.page}, block {block.number}", "exec"), scope)
            ran += 1
    assert ran == 4
    assert scope["output"].hidden_states[0].shape[-1] == 48 and scope["result"].parameters > 0
    assert isinstance(scope["recogniser"], torch.nn.Module)


@pytest.mark.slow
@exports("onnx")
def test_the_readmes_onnx_runs(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    if not (world / "runs" / "small").is_dir():
        run_shell("slimvox prune microsoft/wavlm-base-plus /data/speech --out runs/small", world)
    (block,) = (block for block in BLOCKS if block.language == "python" and "onnxruntime" in block.text)
    command = next(line for line in block.text.splitlines() if line.startswith("# slimvox export"))
    exports = [line for each in BLOCKS for line in each.lines if line.startswith("slimvox export")]
    for line in (command.removeprefix("# ").split("   ")[0], *exports):
        run_shell(f"{line} --force", world)
    scope: dict[str, Any] = {}
    exec(compile(block.text, "README.md", "exec"), scope)
    assert len(scope["hidden_states"]) == 4


def test_no_page_has_a_gap_that_was_to_be_filled() -> None:
    gap = re.compile(r"@[A-Z]{2,}@|\bTODO\b|\bFIXME\b|\bTBD\b|\bXXX\b")
    found = {page.name: gap.findall(page.read_text()) for page in PAGES}
    assert not {name: gaps for name, gaps in found.items() if gaps}


def test_the_makefiles_demo_is_the_demo() -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("there is no make")
    # Where make runs the tests, make says by itself which directory it enters and leaves.
    command = [make, "--no-print-directory", "-n", "demo"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.rstrip().endswith("/slimvox demo")
