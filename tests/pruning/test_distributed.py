"""Processes joined by torchrun on the CPU do together what one does alone, and go on from each other's checkpoints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distributed_runs import finish, torchrun
from interruptions import interrupted_after
from slimvox.pruning import stage
from tiny_runs import make_run

STEPS = {
    "prune.steps": 4,
    "finish.steps": 3,
    "gates.ramp_steps": 2,
    "distillation.masked_share": 0.2,
    "distillation.weights.relation": 0.5,
}
RECORDING = """
import json, os, shutil, signal
from pathlib import Path
import torch
import slimvox
from slimvox.audio import scan
from slimvox.pruning import stage
from tiny_runs import make_run

folder, teacher, speech, steps = Path({folder!r}), Path({teacher!r}), Path({speech!r}), {steps!r}
rank, train_step, clip, noise = (
    int(os.environ["RANK"]), stage.Stage._train_step, stage.Stage._clip, stage.Stage._noise
)
disk = folder / f"disk-{{rank}}"  # no file system is shared
disk.mkdir(exist_ok=True)
done = {{"steps": {{}}, "measured": 0}}
os.environ["SLIMVOX_CACHE"] = str(disk / "cache")
measure = scan.measure

def counting_measure(path):
    done["measured"] += 1
    return measure(path)

scan.measure = counting_measure

def run(name, **arguments):
    model = teacher if rank == 0 else disk / "no-model"  # only the main process reads it
    return make_run(disk / name, model, speech, settings=steps, device="auto", **arguments)

def error_of(call):
    try:
        call()
    except Exception as error:
        return f"{{type(error).__name__}}: {{error}}"

def recording_noise(self, batch, present):
    state = {{name: value.clone() for name, value in self.student.state_dict().items()}}
    done["steps"][self.name, self.step] = {{"waveforms": batch.waveforms, "state": state}}
    return noise(self, batch, present)

def recording_clip(self):
    gradients = {{name: p.grad.clone() for name, p in self.student.named_parameters() if p.grad is not None}}
    done["steps"][self.name, self.step]["gradients"] = gradients
    return clip(self)

stage.Stage._noise, stage.Stage._clip = recording_noise, recording_clip
done["weights"] = run("whole").encoder.state_dict()
stage.Stage._noise, stage.Stage._clip = noise, clip
if rank == 0:
    done["log"] = [json.loads(line) for line in (disk / "whole/run/log.jsonl").read_text().splitlines()]
"""
SCRIPT = (
    RECORDING
    + """
done["begun by one"] = run("begun").encoder.state_dict()

def interrupting_step(self, batches):
    values = train_step(self, batches)
    if (rank, self.name, self.step) == (1, "finish", 1):
        signal.raise_signal(signal.SIGTERM)  # to the process that saves nothing
    return values

stage.Stage._train_step = interrupting_step
done["interrupted"] = error_of(lambda: run("stopped"))
stage.Stage._train_step = train_step
if rank == 0:
    shutil.copytree(disk / "stopped", disk / "for one")
done["resumed"] = run("stopped").encoder.state_dict()
done["repeated"] = run("stopped").encoder.state_dict()
if rank == 0:
    (disk / "taken").mkdir()
    (disk / "taken" / "notes.txt").write_text("mine")
done["taken"] = error_of(lambda: run("taken"))
done["differing"] = error_of(lambda: run("differing", seed=rank))

accumulate, tries = stage.Stage._accumulate, []

def failing_accumulate(self, *arguments):
    if rank == 1 and self.micro_batches.division.seconds < float("inf"):
        raise ZeroDivisionError("a bug")
    return accumulate(self, *arguments)

stage.Stage._accumulate = failing_accumulate
done["failing in one"] = error_of(lambda: run("failing-in-one"))

def full_accumulate(self, *arguments):
    if self.micro_batches.division.seconds == float("inf"):  # a rehearsal
        return accumulate(self, *arguments)
    tries.append(self.micro_batches.division)
    result = accumulate(self, *arguments)
    if rank == 1 and len(tries) == 1:
        raise MemoryError  # in one process, after its work: the other has finished its own
    return result

stage.Stage._accumulate = full_accumulate
done["after running out of memory"] = run("full").encoder.state_dict()
done["tries"] = [str(each) for each in tries]
stage.Stage._accumulate = accumulate

save_cut = slimvox.pruning.run_directory.RunDirectory.save_cut

def failing(self, state):
    raise OSError(28, "No space left on device")

slimvox.pruning.run_directory.RunDirectory.save_cut = failing
done["failing"] = error_of(lambda: run("failing"))
done["measured before"] = done["measured"]
os.environ["SLIMVOX_CACHE"] = str(folder / f"cache-{{rank}}")
own = shutil.copytree(speech, folder / f"audio-{{rank}}")
speech = own
slimvox.pruning.run_directory.RunDirectory.save_cut = save_cut
done["own audio"] = run("own-audio").encoder.state_dict()
done["files"] = sorted(str(path.relative_to(disk)) for path in disk.rglob("*") if path.is_file())
torch.save(done, folder / f"rank-{{rank}}.pt")
"""
)
KILLED = (
    RECORDING.partition("stage.Stage._noise, stage.Stage._clip = recording")[0]
    + """
def dying_step(self, batches):
    if (rank, self.name, self.step) == (1, "prune", 2):
        os.kill(os.getpid(), signal.SIGKILL)
    return train_step(self, batches)

stage.Stage._train_step = dying_step
done["error"] = error_of(lambda: run("killed", checkpoint_seconds=0.0))
torch.save(done, folder / f"rank-{{rank}}.pt")
"""
)
Ranks = list[dict[str, Any]]


def launch(script: str, folder: Path, teacher: Path, speech: Path, processes: int = 2) -> Ranks:
    """Observations of each of some processes."""
    process = torchrun(
        script.format(folder=str(folder), teacher=str(teacher), speech=str(speech), steps=STEPS),
        folder,
        processes=processes,
    )
    said = finish(process)
    assert process.returncode == 0, said
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=False) for rank in range(processes)]


def record_alone(
    out: Path, teacher: Path, speech: Path, patch: pytest.MonkeyPatch
) -> tuple[dict[str, Tensor], dict[tuple[str, int], dict[str, Any]], list[dict[str, Any]]]:
    """Weights, steps and log of the same run in one process."""
    steps: dict[tuple[str, int], dict[str, Any]] = {}
    noise, clip = stage.Stage._noise, stage.Stage._clip

    def recording_noise(self: stage.Stage, batch: Any, present: Any) -> Any:
        steps[self.name, self.step] = {"waveforms": batch.waveforms}
        return noise(self, batch, present)

    def recording_clip(self: stage.Stage) -> Any:
        steps[self.name, self.step]["gradients"] = {
            name: p.grad.clone() for name, p in self.student.named_parameters() if p.grad is not None
        }
        return clip(self)

    with patch.context() as context:
        context.setattr(stage.Stage, "_noise", recording_noise)
        context.setattr(stage.Stage, "_clip", recording_clip)
        result = make_run(out, teacher, speech, settings=STEPS)
    log = [json.loads(line) for line in (out / "run" / "log.jsonl").read_text().splitlines()]
    return result.encoder.state_dict(), steps, log


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("distributed")


@pytest.fixture(scope="module")
def ranks(teacher: Path, speech: Path, folder: Path) -> Ranks:
    """Observations of each of two processes in a run, and in others that were stopped, resumed and refused."""
    with interrupted_after("prune", 2):
        make_run(folder / "disk-0" / "begun", teacher, speech, settings=STEPS)
    return launch(SCRIPT, folder, teacher, speech)


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )


def assert_close(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-5, atol=1e-5)


def assert_same_as_alone(
    ranks: Ranks, out: Path, teacher: Path, speech: Path, patch: pytest.MonkeyPatch
) -> None:
    """Audio, gradients, weights and log of some processes together are those of one."""
    weights, steps, log = record_alone(out, teacher, speech, patch)
    assert len(steps) == 7
    for key, record in steps.items():
        together = [rank["steps"][key] for rank in ranks]
        dealt = [crop for rank in together for crop in rank["waveforms"]]
        assert {crop.numpy().tobytes() for crop in dealt} == {
            crop.numpy().tobytes() for crop in record["waveforms"]
        }
        assert len(dealt) == len(record["waveforms"])
        assert "gates.log_alpha" in record["gradients"] or key[0] == "finish"
        assert_close(record["gradients"], together[0]["gradients"])
    assert_close(weights, ranks[0]["weights"])
    assert len(log) == len(ranks[0]["log"]) == 7
    for ours, theirs in zip(log, ranks[0]["log"], strict=True):
        assert {"loss", "l1", "relation", "gradient_norm"} <= numbers(ours).keys()
        assert numbers(ours) == pytest.approx(numbers(theirs), rel=1e-4, abs=1e-5)


def numbers(record: dict[str, Any]) -> dict[str, float]:
    return {key: value for key, value in record.items() if isinstance(value, float) and "second" not in key}


def test_replicas_are_the_same_to_the_bit_and_have_different_audio(ranks: Ranks) -> None:
    first, second = (rank["steps"] for rank in ranks)
    assert len(first) == 7 and first.keys() == second.keys()
    for step, record in first.items():
        assert equal(record["state"], second[step]["state"])
        assert equal(record["gradients"], second[step]["gradients"])
        ours, others = (
            {crop.numpy().tobytes() for crop in each["waveforms"]} for each in (record, second[step])
        )
        assert ours.isdisjoint(others)
    assert equal(ranks[0]["weights"], ranks[1]["weights"])


def test_two_processes_do_what_one_does(
    ranks: Ranks, teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_same_as_alone(ranks, tmp_path / "alone", teacher, speech, monkeypatch)


def test_a_run_goes_on_with_another_number_of_processes(
    ranks: Ranks, teacher: Path, speech: Path, folder: Path
) -> None:
    for rank in ranks:
        assert_close(ranks[0]["weights"], rank["begun by one"])  # from one to two
    shutil.move(folder / "disk-0" / "for one", folder / "moved")
    alone = make_run(folder / "moved", teacher, speech, settings=STEPS)
    assert_close(ranks[0]["weights"], alone.encoder.state_dict())


def test_a_stop_asked_of_one_process_saves_and_stops_all(ranks: Ranks) -> None:
    for rank in ranks:
        assert rank["interrupted"].startswith("RunInterrupted: stopped after step 2 of stage finish")
        assert equal(rank["resumed"], ranks[0]["weights"])
        assert equal(rank["repeated"], ranks[0]["weights"])


def test_memory_that_runs_out_in_one_process_makes_all_repeat_the_step(ranks: Ranks) -> None:
    for rank in ranks:
        assert rank["tries"][0] != rank["tries"][1] and len(rank["tries"]) == 8
        assert_close(ranks[0]["weights"], rank["after running out of memory"])


def test_errors_of_one_process_reach_the_other(ranks: Ranks) -> None:
    for rank in ranks:
        assert rank["taken"].startswith("SlimvoxError: ") and "is not empty" in rank["taken"]
        assert rank["differing"].startswith("SlimvoxError: the 2 processes differ in seed")
    assert ranks[1]["failing in one"] == "ZeroDivisionError: a bug"
    assert ranks[0]["failing in one"] == "SlimvoxError: another process failed: ZeroDivisionError: a bug"
    assert ranks[0]["failing"] == "OSError: [Errno 28] No space left on device"
    assert ranks[1]["failing"].startswith(
        "SlimvoxError: another process failed: OSError: No space left on device"
    )


def test_only_the_main_process_writes(ranks: Ranks) -> None:
    assert {"whole/model.safetensors", "stopped/model.safetensors"} <= set(ranks[0]["files"])
    assert ranks[1]["files"] == []


def test_one_process_measures_the_audio_unless_each_has_it_in_another_place(
    ranks: Ranks, speech: Path
) -> None:
    files = len(list(speech.iterdir()))
    assert [rank["measured before"] for rank in ranks] == [files, 0]
    assert [rank["measured"] - rank["measured before"] for rank in ranks] == [files, files]
    for rank in ranks:
        assert_close(ranks[0]["weights"], rank["own audio"])


def test_a_process_that_is_killed_ends_the_other_in_one_sentence_and_one_goes_on_alone(
    ranks: Ranks, teacher: Path, speech: Path, tmp_path: Path
) -> None:
    script = KILLED.format(folder=str(tmp_path), teacher=str(teacher), speech=str(speech), steps=STEPS)
    process = torchrun(script, tmp_path)
    finish(process)
    assert process.returncode != 0
    error = torch.load(tmp_path / "rank-0.pt", weights_only=False)["error"]
    assert error.startswith("SlimvoxError: another process ended (killed, or out of memory?)")
    assert (tmp_path / "disk-0" / "killed" / "run" / "checkpoint.pt").is_file()
    alone = make_run(tmp_path / "disk-0" / "killed", teacher, speech, settings=STEPS)
    assert_close(ranks[0]["weights"], alone.encoder.state_dict())


@pytest.mark.slow
def test_four_processes_do_what_one_does(
    teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More processes than some batches have clips."""
    saving = 'torch.save(done, folder / f"rank-{{rank}}.pt")\n'
    four = launch(RECORDING + saving, tmp_path, teacher, speech, processes=4)
    assert any(not len(record["waveforms"]) for rank in four for record in rank["steps"].values())
    assert_same_as_alone(four, tmp_path / "alone", teacher, speech, monkeypatch)
