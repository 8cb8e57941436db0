"""Damaged files: a run goes on with the same weights from what is left, or says in one sentence what is damaged."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

import slimvox
from interruptions import interrupted_after
from slimvox.cli.main import run
from slimvox.pruning.checked_files import (
    DamagedFileError,
    checksum,
    read_checked_json,
    read_checked_state,
    write_checked_json,
    write_checked_state,
)
from tiny_runs import make_run

FLIPS = 150


def flip(path: Path, byte: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


def tensors_in(content: object) -> Iterator[torch.Tensor]:
    """All tensors of a state."""
    if isinstance(content, torch.Tensor):
        yield content
    elif isinstance(content, (dict, list, tuple)):
        for each in content.values() if isinstance(content, dict) else content:
            yield from tensors_in(each)


def damage_tensors(path: Path) -> None:
    """Flip a bit in the middle of the largest tensor, such that torch itself notices nothing.

    The middle of the file may be padding between two tensors: where they lie differs between versions of torch.
    """
    before = torch.load(path, weights_only=True)["state"]
    values = max(tensors_in(before), key=torch.Tensor.numel).numpy().tobytes()
    flip(path, path.read_bytes().index(values) + len(values) // 2, 3)
    assert checksum(torch.load(path, weights_only=True)["state"]) != checksum(before)


def damage_text(path: Path) -> None:
    """Change a digit of the JSON in a file."""
    text = path.read_text()
    place = next(index for index in range(len(text) // 2, len(text)) if text[index] in "12345678")
    path.write_text(text[:place] + str(int(text[place]) + 1) + text[place + 1 :])
    json.loads(path.read_text())


DAMAGE = {"checkpoint.pt": damage_tensors, "cut.pt": damage_tensors, "settings.json": damage_text}


def weights(out: Path) -> bytes:
    return (out / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def finished(teacher: Path, speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an uninterrupted run."""
    return make_run(tmp_path_factory.mktemp("whole") / "out", teacher, speech).directory


@pytest.fixture(scope="module")
def stopped(teacher: Path, speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that was stopped in stage 2, with a checkpoint of every step."""
    out = tmp_path_factory.mktemp("stopped") / "out"
    with interrupted_after("finish", 3):
        make_run(out, teacher, speech, checkpoint_seconds=0)
    return out


@pytest.mark.parametrize("links", [True, False], ids=["hard-links", "no-hard-links"])
def test_a_whole_state_is_there_at_any_time(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, before, seen = tmp_path / "file", tmp_path / "backup" / "file", []
    sync = os.fsync

    def look(descriptor: int) -> None:
        """The last moment before the new file takes its place."""
        seen.append([read_checked_state(each)["step"] if each.is_file() else None for each in (path, before)])
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    if not links:
        monkeypatch.setattr(Path, "hardlink_to", Mock(side_effect=PermissionError))
    for step in (1, 2, 3):
        write_checked_state(path, {"step": step}, before=before)
    assert seen == [[None, None], *([[1, 1], [2, 2]] if links else [[None, 1], [None, 2]])]
    assert (read_checked_state(path)["step"], read_checked_state(before)["step"]) == (3, 2)


@pytest.mark.parametrize("kind", ["state", "json"])
def test_a_flipped_bit_is_noticed_or_changes_nothing(kind: str, tmp_path: Path) -> None:
    path, random = tmp_path / "file", np.random.default_rng(0)
    content: dict[str, Any] = {"step": 3, "rates": [0.1, 2e-5], "name": "prune", "nothing": None}
    if kind == "state":
        content["weights"] = {
            "first": torch.randn(40, 3),
            "second": torch.arange(5),
            "empty": torch.empty(0, 2),
        }
        write_checked_state(path, content)
    else:
        write_checked_json(path, content)
    read = read_checked_state if kind == "state" else read_checked_json
    right, whole, noticed = checksum(content), path.read_bytes(), 0
    assert checksum(read(path)) == right
    for _ in range(FLIPS):
        path.write_bytes(whole)
        flip(path, int(random.integers(len(whole))), int(random.integers(8)))
        try:
            content_read = read(path)
            # A flip in the name of the checksum adds a name, and the rest is whole.
            assert checksum({name: content_read[name] for name in content}) == right
        except DamagedFileError:
            noticed += 1
    assert noticed > FLIPS / 5
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedFileError):
            read(path)


def test_a_checksum_tells_types_shapes_and_places_apart() -> None:
    one = torch.ones(4)
    contents: list[Any] = [
        {"a": one},
        {"b": one},
        {"a": one.double()},
        {"a": one.reshape(2, 2)},
        {"a": -one},
        {"a": [1]},
        {"a": [1.0]},
        {"a": ["1"]},
        {"a": [[1]]},
        {"a": [True]},
        {"a": None},
    ]
    assert len({checksum(content) for content in contents}) == len(contents)
    assert checksum({"a": torch.arange(6).reshape(2, 3).T}) == checksum(
        {"a": torch.arange(6).reshape(2, 3).T.clone()}
    )


@pytest.mark.parametrize("name", list(DAMAGE))
def test_a_run_goes_on_from_the_backup_of_a_damaged_file(
    name: str,
    finished: Path,
    stopped: Path,
    teacher: Path,
    speech: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = tmp_path / "out"
    shutil.copytree(stopped, out)
    DAMAGE[name](out / "run" / name)
    make_run(out, teacher, speech)
    assert weights(out) == weights(finished)
    (warning,) = (text for each in caplog.records if "damaged" in (text := each.getMessage()))
    assert str(out / "run" / name) in warning and str(out / "run" / "backup" / name) in warning
    assert not (out / "run" / "backup").exists()


def test_without_a_whole_checkpoint_the_stage_starts_again(
    finished: Path,
    stopped: Path,
    teacher: Path,
    speech: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = tmp_path / "out"
    shutil.copytree(stopped, out)
    for path in out.rglob("checkpoint.pt"):
        damage_tensors(path)
    make_run(out, teacher, speech)
    assert weights(out) == weights(finished)
    assert any("the stage starts again" in each.getMessage() for each in caplog.records)


@pytest.mark.parametrize("name", ["cut.pt", "settings.json"])
def test_damage_of_a_file_and_its_backup_is_one_sentence(
    name: str, stopped: Path, teacher: Path, speech: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(stopped, out)
    for path in out.rglob(name):
        DAMAGE[name](path)
    with pytest.raises(slimvox.SlimvoxError, match=rf"run/{name} is damaged; delete {out} and start again$"):
        make_run(out, teacher, speech)


def test_damage_of_a_finished_encoder_is_noticed_when_the_run_is_repeated(
    finished: Path, teacher: Path, speech: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    flip(out / "model.safetensors", (out / "model.safetensors").stat().st_size // 2)
    with pytest.raises(slimvox.SlimvoxError, match=r"model\.safetensors is not the file that the run wrote"):
        make_run(out, teacher, speech)


def test_a_damaged_size_is_noticed_when_its_run_goes_on(teacher: Path, speech: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with interrupted_after("finish keep-28", 1):
        make_run(out, teacher, speech, sizes="50%,28%")
    model, cut = out / "keep-50" / "model.safetensors", out / "keep-28" / "run" / "cut.pt"
    whole = model.read_bytes()
    flip(model, len(whole) // 2)
    with pytest.raises(
        slimvox.SlimvoxError, match=rf"keep-50/model.safetensors is not .* delete {out} and start"
    ):
        make_run(out, teacher, speech, sizes="50%,28%")
    model.write_bytes(whole)
    damage_tensors(cut)
    assert len(make_run(out, teacher, speech, sizes="50%,28%").sizes) == 2


def test_lines_of_a_damaged_log_are_left_out(
    stopped: Path, finished: Path, teacher: Path, speech: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(stopped, out)
    log = out / "run" / "log.jsonl"
    lines = log.read_bytes().splitlines()
    lines[1] = b'{"stage": "prunf", "step": 2}'
    lines[2] = b"\xff\xfe"
    lines[3] = b'{"stage": "prune", "step": null}'
    log.write_bytes(b"\n".join(lines) + b'\n{"stage": "fin')
    make_run(out, teacher, speech)
    assert weights(out) == weights(finished)
    steps = [json.loads(line)["step"] for line in log.read_bytes().splitlines()]
    assert steps == [1, 5, 6, 1, 2, 3, 4]


def test_a_damaged_latency_table_is_one_sentence(
    teacher: Path, speech: Path, stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(stopped, out)
    (out / "run" / "cost.json").write_text('{"seconds": "one"')
    command = [
        "prune",
        str(teacher),
        str(speech),
        "--out",
        str(out),
        "--target-speed",
        "2x",
        "--device",
        "cpu",
    ]
    assert run(command) == 2
    assert f"cost.json is damaged; delete {out} and start again" in capsys.readouterr().err.replace("\n", "")
