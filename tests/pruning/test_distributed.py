"""Two processes, joined by torchrun on the CPU, do what one process with both batches would do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distributed_runs import finish, torchrun
from slimvox.pruning import stage
from tiny_runs import make_run

STEPS = {"prune.steps": 4, "finish.steps": 3, "gates.ramp_steps": 2}
SCRIPT = """
import json, os, signal
from pathlib import Path
import slimvox
from slimvox.pruning import stage
from tiny_runs import make_run

folder, teacher, speech, steps = Path({folder!r}), Path({teacher!r}), Path({speech!r}), {steps!r}
rank, train_step, clip = int(os.environ["RANK"]), stage.Stage._train_step, stage.Stage._clip
disk = folder / f"disk-{{rank}}"  # no file system is shared
disk.mkdir()
done = {{"steps": {{}}}}

def run(name, **arguments):
    return make_run(disk / name, teacher, speech, settings=steps, device="auto", **arguments)

def error_of(call):
    try:
        call()
    except Exception as error:
        return f"{{type(error).__name__}}: {{error}}"

def recording_step(self, waveforms):
    state = {{name: value.clone() for name, value in self.student.state_dict().items()}}
    done["steps"][self.name, self.step] = {{"waveforms": waveforms, "state": state}}
    return train_step(self, waveforms)

def recording_clip(self):
    gradients = {{name: p.grad.clone() for name, p in self.student.named_parameters() if p.grad is not None}}
    done["steps"][self.name, self.step]["gradients"] = gradients
    return clip(self)

stage.Stage._train_step, stage.Stage._clip = recording_step, recording_clip
done["weights"] = run("whole").encoder.state_dict()
stage.Stage._clip = clip
if rank == 0:
    done["log"] = [json.loads(line) for line in (disk / "whole/run/log.jsonl").read_text().splitlines()]

def interrupting_step(self, waveforms):
    values = train_step(self, waveforms)
    if (rank, self.name, self.step) == (1, {stop_stage!r}, {stop_step!r}):
        signal.raise_signal(signal.SIGTERM)  # to the process that saves nothing
    return values

stage.Stage._train_step = interrupting_step
done["interrupted"] = error_of(lambda: run("stopped"))
stage.Stage._train_step = train_step
done["resumed"] = run("stopped").encoder.state_dict()
done["repeated"] = run("stopped").encoder.state_dict()
if rank == 0:
    (disk / "taken").mkdir()
    (disk / "taken" / "notes.txt").write_text("mine")
done["taken"] = error_of(lambda: run("taken"))
done["differing"] = error_of(lambda: run("differing", seed=rank))

def failing(self, state):
    raise OSError(28, "No space left on device")

slimvox.pruning.run_directory.RunDirectory.save_cut = failing
done["failing"] = error_of(lambda: run("failing"))
done["files"] = sorted(str(path.relative_to(disk)) for path in disk.rglob("*") if path.is_file())
torch.save(done, folder / f"rank-{{rank}}.pt")
"""


@pytest.fixture(scope="module")
def ranks(teacher: Path, speech: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Observations of each of two processes in a run, and in others that were stopped, resumed and refused."""
    folder = tmp_path_factory.mktemp("distributed")
    paths = {
        name: str(path) for name, path in {"folder": folder, "teacher": teacher, "speech": speech}.items()
    }
    process = torchrun(SCRIPT.format(**paths, steps=STEPS, stop_stage="finish", stop_step=1), folder)
    said = finish(process)
    assert process.returncode == 0, said
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=False) for rank in (0, 1)]


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )


def test_replicas_are_the_same_to_the_bit_and_have_different_audio(ranks: list[dict[str, Any]]) -> None:
    first, second = (rank["steps"] for rank in ranks)
    assert len(first) == 7 and first.keys() == second.keys()
    for step, record in first.items():
        assert equal(record["state"], second[step]["state"])
        assert equal(record["gradients"], second[step]["gradients"])
        ours, others = (
            {crop.numpy().tobytes() for crop in each["waveforms"]} for each in (record, second[step])
        )
        assert ours and ours.isdisjoint(others)
    assert "gates.log_alpha" in first["prune", 0]["gradients"]
    assert equal(ranks[0]["weights"], ranks[1]["weights"])


def test_two_processes_are_one_with_both_batches(
    ranks: list[dict[str, Any]], teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def both_batches(self: stage.Stage, _: Tensor) -> dict[str, float]:
        records = [rank["steps"][self.name, self.step] for rank in ranks]
        losses = [self._losses(record["waveforms"], process) for process, record in enumerate(records)]
        for each in losses:
            (each["loss"] / 2).backward()
        for name, parameter in self.student.named_parameters():
            torch.testing.assert_close(
                self.student.state_dict()[name], records[0]["state"][name], rtol=1e-5, atol=1e-5
            )
            if parameter.grad is not None:
                torch.testing.assert_close(
                    parameter.grad, records[0]["gradients"][name], rtol=1e-5, atol=1e-5
                )
        return self._update({name: (losses[0][name] + losses[1][name]) / 2 for name in losses[0]})

    def numbers(record: dict[str, Any]) -> dict[str, float]:
        return {
            key: value for key, value in record.items() if isinstance(value, float) and "second" not in key
        }

    monkeypatch.setattr(stage.Stage, "_train_step", both_batches)
    alone = make_run(tmp_path / "alone", teacher, speech, settings=STEPS)
    for name, value in alone.encoder.state_dict().items():
        torch.testing.assert_close(value, ranks[0]["weights"][name], rtol=1e-5, atol=1e-5)
    log = [json.loads(line) for line in (alone.directory / "run" / "log.jsonl").read_text().splitlines()]
    assert len(log) == len(ranks[0]["log"]) == 7
    for ours, theirs in zip(log, ranks[0]["log"], strict=True):
        assert {"loss", "l1", "gradient_norm"} <= numbers(ours).keys()
        assert numbers(ours) == pytest.approx(numbers(theirs), rel=1e-4, abs=1e-5)


def test_a_stop_asked_of_one_process_saves_and_stops_all(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["interrupted"].startswith("RunInterrupted: stopped after step 2 of stage finish")
        assert equal(rank["resumed"], ranks[0]["weights"])
        assert equal(rank["repeated"], ranks[0]["weights"])


def test_errors_of_the_main_process_reach_the_other(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["taken"].startswith("SlimvoxError: ") and "is not empty" in rank["taken"]
        assert rank["differing"].startswith("SlimvoxError: the 2 processes differ in seed")
    assert ranks[0]["failing"] == "OSError: [Errno 28] No space left on device"
    assert ranks[1]["failing"].startswith(
        "SlimvoxError: another process failed: OSError: [Errno 28] No space"
    )


def test_only_the_main_process_writes(ranks: list[dict[str, Any]]) -> None:
    assert {"whole/model.safetensors", "stopped/model.safetensors"} <= set(ranks[0]["files"])
    assert ranks[1]["files"] == []
