"""Whole runs: what they write, how they stop, how they go on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import slimvox
from interruptions import interrupted_after, kill_when
from slimvox.pruning import CONTROLS, checked_files
from slimvox.pruning.checked_files import read_checked_state
from slimvox.pruning.recipe import shipped_recipes
from slimvox.structures.kept_indices import KeptIndices

STEPS = ["prune.steps=6", "finish.steps=5", "gates.ramp_steps=3", "data.seconds_per_batch=3.0"]
SETTINGS = [*STEPS, "data.min_seconds=0.5", "data.max_seconds=1.0", "gates.learning_rate=0.5"]


def weights_hash(directory: Path) -> str:
    return hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()


def run(teacher: Path, speech: Path, out: Path, **arguments: Any) -> slimvox.PruneResult:
    fields: dict[str, Any] = {"recipe": "quick", "overrides": SETTINGS, "device": "cpu", **arguments}
    return slimvox.prune(teacher, speech, out, **fields)


def stop_and_go_on(
    teacher: Path,
    speech: Path,
    folder: Path,
    overrides: list[str],
    *,
    stage_name: str,
    step: int,
) -> None:
    """A run in `whole`, and one in `stopped` that is interrupted and goes on, have to end with the same weights."""
    run(teacher, speech, folder / "whole", overrides=overrides)
    with interrupted_after(stage_name, step):
        run(teacher, speech, folder / "stopped", overrides=overrides)
    run(teacher, speech, folder / "stopped", overrides=overrides)
    assert weights_hash(folder / "stopped") == weights_hash(folder / "whole")


@pytest.fixture(scope="module")
def finished(teacher: Path, speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an uninterrupted run."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    run(teacher, speech, out)
    return out


def test_a_run_meets_its_target_and_loads(finished: Path, teacher: Path) -> None:
    encoder, dense = slimvox.load(finished), slimvox.load(teacher)
    assert 0.995 * 0.28 <= encoder.parameter_count / dense.parameter_count <= 0.28
    assert encoder.dense_anatomy == dense.anatomy
    states = encoder(torch.randn(2, 8000)).hidden_states
    assert len(states) == len(dense.anatomy.layers) + 1
    assert states[0].shape[-1] == dense.anatomy.width
    assert encoder(torch.randn(2, 8000)).frame_mask.all()
    kept = KeptIndices.from_dict(json.loads((finished / "kept_indices.json").read_text()), dense.anatomy)
    assert kept.anatomy(dense.anatomy) == encoder.anatomy


def test_the_log_has_every_step(finished: Path) -> None:
    records = [json.loads(line) for line in (finished / "run" / "log.jsonl").read_text().splitlines()]
    steps = [(record["stage"], record["step"]) for record in records]
    assert steps == [("prune", n) for n in range(1, 7)] + [("finish", n) for n in range(1, 6)]
    assert {"loss", "sparsity", "target_sparsity", "learning_rate"} <= set(records[0])
    assert records[2]["target_sparsity"] == pytest.approx(0.72)


def test_multipliers_are_logged_and_go_on_after_an_interruption(
    teacher: Path, speech: Path, tmp_path: Path
) -> None:
    """The penalty of the paper, whose multipliers have a state of their own."""
    overrides = [*SETTINGS, "gates.sparsity_control=lagrangian"]
    stop_and_go_on(teacher, speech, tmp_path, overrides, stage_name="prune", step=4)
    records = [
        json.loads(line) for line in (tmp_path / "stopped" / "run" / "log.jsonl").read_text().splitlines()
    ]
    assert {"loss", "sparsity", "target_sparsity", "lambda1", "lambda2", "learning_rate"} <= set(records[0])


def test_the_card_names_teacher_and_figures(finished: Path, teacher: Path) -> None:
    card = (finished / "README.md").read_text()
    assert teacher.name in card and "relative error" in card and "steps = 6" in card
    assert str(teacher.parent) not in card


@pytest.mark.parametrize(("stage_name", "step"), [("prune", 1), ("prune", 4), ("finish", 3)])
def test_an_interrupted_run_ends_with_the_same_weights(
    stage_name: str,
    step: int,
    finished: Path,
    teacher: Path,
    speech: Path,
    tmp_path: Path,
) -> None:
    """Ctrl-C after a given step; the same call goes on and ends bit-identically."""
    with interrupted_after(stage_name, step):
        run(teacher, speech, tmp_path / "out")
    assert not (tmp_path / "out" / "config.json").exists()
    run(teacher, speech, tmp_path / "out")
    assert weights_hash(tmp_path / "out") == weights_hash(finished)
    first = (finished / "run" / "log.jsonl").read_text().splitlines()
    second = (tmp_path / "out" / "run" / "log.jsonl").read_text().splitlines()
    speed = "audio_seconds_per_second"
    assert [{**json.loads(a), speed: 0} for a in first] == [{**json.loads(b), speed: 0} for b in second]


def test_a_killed_run_ends_with_the_same_weights(
    finished: Path, teacher: Path, speech: Path, tmp_path: Path
) -> None:
    """SIGKILL in the middle, of a process of its own."""
    out = tmp_path / "out"
    code = (
        "import time, slimvox\n"
        "from slimvox.pruning import stage\n"
        "step = stage.Stage._train_step\n"
        "stage.Stage._train_step = lambda self, batches: (time.sleep(0.3), step(self, batches))[1]\n"
        f"slimvox.prune({str(teacher)!r}, {str(speech)!r}, {str(out)!r}, recipe='quick', device='cpu',"
        f" overrides={SETTINGS!r}, checkpoint_seconds=0)\n"
    )
    kill_when(code, out / "run" / "log.jsonl", 3)
    assert (out / "run" / "checkpoint.pt").is_file() and not (out / "model.safetensors").exists()
    run(teacher, speech, out)
    assert weights_hash(out) == weights_hash(finished)


def test_a_full_disk_keeps_the_last_checkpoint(
    finished: Path, teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, saved = tmp_path / "out", 0
    save = torch.save

    def failing(state: object, file: Any) -> None:
        nonlocal saved
        saved += 1
        if saved == 3:
            file.write(b"half of a checkpoint")
            raise OSError(28, "No space left on device")
        save(state, file)

    with monkeypatch.context() as patch:
        patch.setattr(checked_files.torch, "save", failing)
        with pytest.raises(
            slimvox.SlimvoxError, match=r"checkpoint\.pt cannot be written \(is the disk full\?\)"
        ):
            run(teacher, speech, out, checkpoint_seconds=0)
    saved_steps = [read_checked_state(path)["step"] for path in (out / "run").rglob("checkpoint.pt")]
    assert sorted(saved_steps) == [1, 2] and not list(out.rglob("*.tmp"))
    run(teacher, speech, out)
    assert weights_hash(out) == weights_hash(finished)


LONGER = "a longer stage 1 (`prune.steps`), or a"


@pytest.mark.parametrize(
    ("control", "keep", "drop", "advice"),
    [
        (
            "lagrangian",
            0.3,
            0.01,
            f"{LONGER} higher `gates.learning_rate` or `gates.multiplier_learning_rate`,",
        ),
        ("lagrangian", 0.9, 0.5, "a lower `gates.multiplier_learning_rate`"),
        ("projection", 0.3, 0.01, f"{LONGER} higher `gates.learning_rate`,"),
        ("projection", 0.9, 0.5, "a lower `gates.initial_drop`"),
    ],
)
def test_gates_that_end_far_from_the_target_are_told(
    control: str,
    keep: float,
    drop: float,
    advice: str,
    teacher: Path,
    speech: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    gates = [
        "gates.learning_rate=1e-6",
        f"gates.initial_drop={drop}",
        f"gates.sparsity_control={control}",
    ]
    overrides = [*STEPS, *gates, "data.min_seconds=0.5"]
    run(teacher, speech, tmp_path / "out", overrides=overrides, target_parameters=keep)
    (warning,) = (text for record in caplog.records if "far from the target" in (text := record.getMessage()))
    assert f"target {100 * (1 - keep):.0f} %" in warning
    assert warning.endswith(f" but {advice} would prune better.")


@pytest.mark.parametrize("control", CONTROLS)
def test_controls_have_the_same_size(control: Any, teacher: Path, speech: Path, tmp_path: Path) -> None:
    result = run(teacher, speech, tmp_path / "out", control=control)
    assert 0.995 * 0.28 <= result.parameters / result.parameters_dense <= 0.28
    if control == "top-layers":
        layers = [bool(layer.heads) or bool(layer.intermediate) for layer in result.encoder.anatomy.layers]
        assert layers == sorted(layers, reverse=True) and not layers[-1]
    if control == "thin":
        widths = [layer.intermediate for layer in result.encoder.anatomy.layers]
        assert max(widths) - min(widths) <= 1 and max(widths) < 96


def test_every_option_of_the_loss_survives_an_interruption(
    finished: Path, teacher: Path, speech: Path, tmp_path: Path
) -> None:
    options = {
        "distillation.layers": 13,
        "distillation.weights.relation": 1.0,
        "distillation.maps": False,
        "distillation.targets": "groups",
        "distillation.masked_share": 0.3,
        "gates.initial_drops.intermediate": 0.3,
    }
    overrides = [*SETTINGS, *(f"{name}={json.dumps(value)}" for name, value in options.items())]
    stop_and_go_on(teacher, speech, tmp_path, overrides, stage_name="finish", step=2)
    log, plain = (
        [json.loads(line) for line in (out / "run" / "log.jsonl").read_text().splitlines()]
        for out in (tmp_path / "whole", finished)
    )
    assert all(record["relation"] > 0 for record in log)
    assert log[0]["sparsity"] > plain[0]["sparsity"]


def test_a_pruned_encoder_can_be_pruned_again(finished: Path, speech: Path, tmp_path: Path) -> None:
    result = run(finished, speech, tmp_path / "smaller", target_macs="10%", max_steps=4)
    dense = result.encoder.dense_anatomy
    assert result.macs_10s <= 0.1 * result.macs_10s_dense
    kept = KeptIndices.from_dict(json.loads((tmp_path / "smaller" / "kept_indices.json").read_text()), dense)
    assert kept.anatomy(dense) == result.encoder.anatomy


def test_pruned_twice_the_original_indices_and_both_runs_are_told(
    finished: Path, teacher: Path, speech: Path, tmp_path: Path
) -> None:
    """A share is one of the dense encoder, whatever was pruned before."""
    result = run(finished, speech, tmp_path / "smaller", target_parameters="20%")
    dense = slimvox.load(teacher)
    assert result.parameters_dense == dense.parameter_count
    assert 0.995 * 0.2 <= result.parameters / dense.parameter_count <= 0.2
    first, both = (
        KeptIndices.from_dict(json.loads((directory / "kept_indices.json").read_text()), dense.anatomy)
        for directory in (finished, tmp_path / "smaller")
    )
    assert both.anatomy(dense.anatomy) == slimvox.load(tmp_path / "smaller").anatomy
    assert first.units.keys() == both.units.keys()
    for address, after in both.units.items():
        assert set(after) <= set(first[address]), address
    channels = [address for address in first.units if address.structure == "conv"]
    assert any(max(both[address]) >= len(first[address]) for address in channels)
    card = (tmp_path / "smaller" / "README.md").read_text()
    share = slimvox.load(finished).parameter_count / dense.parameter_count
    assert f"Pruned in 2 runs: `finished` came from `{teacher.name}` with {share:.1%}" in card
    assert f"this encoder from `finished` with {result.parameters / dense.parameter_count:.1%}" in card
    assert "Pruned in" not in (finished / "README.md").read_text()
    again = run(tmp_path / "smaller", speech, tmp_path / "smallest", target_macs="8%", max_steps=2)
    card = (tmp_path / "smallest" / "README.md").read_text()
    assert f"Pruned in 3 runs: `smaller` came from `finished`, in turn from `{teacher.name}`" in card
    assert again.macs_10s <= 0.08 * again.macs_10s_dense


@pytest.mark.parametrize("recipe", shipped_recipes())
def test_every_shipped_recipe_runs(recipe: str, teacher: Path, speech: Path, tmp_path: Path) -> None:
    overrides = ["data.min_seconds=0.5", "data.max_seconds=1.0", "data.seconds_per_batch=3.0"]
    result = run(
        teacher,
        speech,
        tmp_path / "out",
        recipe=recipe,
        overrides=overrides,
        target_parameters="45%",
        max_steps=3,
    )
    assert 0.99 * 0.45 <= result.parameters / result.parameters_dense <= 0.45


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target_parameters": "0.1%"}, "cannot be reached"),
        ({"target_parameters": "120%"}, "below what the dense encoder has"),
        ({"target_parameters": "lots"}, "a share such as 28%"),
        ({"target_parameters": "28%", "target_macs": "28%"}, "only one of"),
        ({"max_steps": 0}, "max_steps"),
        ({"device": "abacus"}, "`device` must be one of"),
        ({"precision": "int3"}, "`precision` must be one of"),
        ({"recipe": "soup"}, "choose one of default, fast, paper, quick"),
        ({"overrides": ["prune.stepz=3"]}, "there is no field `prune.stepz`"),
        ({"held_out": np.zeros(9)}, "write waveforms to files first"),
    ],
)
def test_bad_requests_say_what_to_do(
    arguments: dict[str, Any], message: str, teacher: Path, speech: Path, tmp_path: Path
) -> None:
    with pytest.raises(slimvox.SlimvoxError, match=message):
        run(teacher, speech, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_an_encoder_in_memory_is_pruned_as_its_directory(
    teacher: Path, speech: Path, finished: Path, tmp_path: Path
) -> None:
    result = run(slimvox.load(teacher).train(), speech, tmp_path / "out")  # type: ignore[arg-type]
    assert weights_hash(result.directory) == weights_hash(finished)
    assert json.loads((result.directory / "config.json").read_text())["teacher"]["name"] == "SpeechEncoder"
    result.encoder.save_pretrained(tmp_path / "copy")
    assert (tmp_path / "copy" / "README.md").read_text() == (tmp_path / "out" / "README.md").read_text()
    assert (tmp_path / "copy" / "kept_indices.json").is_file()
