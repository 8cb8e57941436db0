"""Parts of a run are replaced, and callbacks are called, without touching the package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import slimvox
from slimvox.costs import Cost, CostContext, Parameters
from slimvox.pruning import Callback, HeldOutDistance, Pruner, TrainingState
from slimvox.pruning.distillation import Distillation
from slimvox.pruning.gates import Gates
from slimvox.pruning.recipe import Recipe
from slimvox.structures.anatomy import EncoderAnatomy
from tiny_runs import SETTINGS, make_run, make_speech, make_teacher

OPTIONS: dict[str, Any] = {
    "recipe": "quick",
    "overrides": {**SETTINGS, "data.held_out_seconds": 2.0},
    "device": "cpu",
    "precision": "float32",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    path = tmp_path_factory.mktemp("pruner")
    return make_teacher(path / "teacher"), make_speech(path / "speech")


class Sizes(Callback):
    """Records the size of the encoder as it would come out after every step."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int]] = []

    def on_step(self, state: TrainingState) -> Mapping[str, float] | None:
        before = {name: weight.clone() for name, weight in state.student.state_dict().items()}
        encoder = state.encoder()
        assert not encoder.training and all(not weight.requires_grad for weight in encoder.parameters())
        encoder(torch.zeros(1, 4000) + 0.1)
        for name, weight in state.student.state_dict().items():
            assert torch.equal(weight, before[name])
        self.seen.append((state.stage, state.step, encoder.parameter_count))
        return {"parameters": encoder.parameter_count, "loss_twice": 2 * state.values["loss"]}


def test_callbacks_see_the_encoder_of_every_step_and_change_nothing(
    data: tuple[Path, Path], tmp_path: Path
) -> None:
    sizes, distance = Sizes(), HeldOutDistance(every=4)
    result = Pruner(*data, tmp_path / "out", callbacks=[sizes, distance], **OPTIONS).run()
    plain = make_run(tmp_path / "plain", *data, settings={"data.held_out_seconds": 2.0})
    for name, weight in plain.encoder.state_dict().items():
        assert torch.equal(weight, result.encoder.state_dict()[name])
    assert [(stage, step) for stage, step, _ in sizes.seen] == [
        *(("prune", step) for step in range(1, 7)),
        *(("finish", step) for step in range(1, 5)),
    ]
    counts = [count for *_, count in sizes.seen]
    dense = slimvox.load(data[0]).parameter_count
    assert dense > counts[0] > counts[2] >= counts[5] == counts[-1] == result.parameters
    log = [json.loads(line) for line in (tmp_path / "out" / "run" / "log.jsonl").read_text().splitlines()]
    figures = [record["callback"] for record in log if "callback" in record]
    losses = [record["loss"] for record in log if "callback" not in record]
    assert [each["loss_twice"] for each in figures if "loss_twice" in each] == [2 * loss for loss in losses]
    errors = [each["relative_error"] for each in figures if "relative_error" in each]
    assert len(errors) == 3 and result.distance_after_finish is not None
    assert errors[-1] == pytest.approx(result.distance_after_finish.relative_error, rel=1e-5)
    assert [record for record in log if "callback" not in record] == [
        {**record, "audio_seconds_per_second": ours["audio_seconds_per_second"]}
        for record, ours in zip(
            map(json.loads, (tmp_path / "plain" / "run" / "log.jsonl").read_text().splitlines()),
            [each for each in log if "callback" not in each],
            strict=True,
        )
    ]


class WidthsOnly(Pruner):
    """Other gates, another loss and another cost than the recipe says."""

    def build_gates(self, anatomy: EncoderAnatomy, recipe: Recipe) -> Gates:
        return Gates(anatomy, ["intermediate"])

    def build_distillation(self, anatomy: EncoderAnatomy, recipe: Recipe) -> Distillation:
        return Distillation(anatomy.width, [len(anatomy.layers)], weights={"l1": 0.0}, maps=False)

    def build_cost(self, kind: str, context: CostContext) -> Cost:
        assert context.dense.layers
        return Parameters()


def test_replaced_parts_are_used_and_a_run_goes_on_with_the_same_only(
    data: tuple[Path, Path], tmp_path: Path
) -> None:
    options = {**OPTIONS, "target_parameters": "80%"}
    pruner = WidthsOnly(*data, tmp_path / "out", **options)
    assert [name.rsplit(".", 1)[1] for name in pruner.replaced] == [
        "build_gates",
        "build_distillation",
        "build_cost",
    ]
    result = pruner.run()
    dense = slimvox.load(data[0]).anatomy
    for layer, whole in zip(result.encoder.anatomy.layers, dense.layers, strict=True):
        assert layer.heads == whole.heads and layer.intermediate < whole.intermediate
    log = [json.loads(line) for line in (tmp_path / "out" / "run" / "log.jsonl").read_text().splitlines()]
    assert all("l1" not in record and record["cosine"] == record["distillation"] for record in log)
    with pytest.raises(slimvox.SlimvoxError, match="different parts"):
        slimvox.prune(*data, tmp_path / "out", **options)


def test_gates_that_cannot_reach_the_target_are_an_error_before_the_run(
    data: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(slimvox.SlimvoxError, match="cannot be reached"):
        WidthsOnly(*data, tmp_path / "out", **OPTIONS, target_parameters="28%").run()
    assert not (tmp_path / "out").exists()


def test_callbacks_see_the_gates_values_of_the_recipe(data: tuple[Path, Path], tmp_path: Path) -> None:
    """With gates of value 1, single weights of the encoder are those of the student."""

    class Values(Callback):
        def on_step(self, state: TrainingState) -> None:
            if state.stage == "prune":
                weights = state.encoder().layers[0].feed_forward.output_dense.weight
                dense = state.student.encoder.layers[0].feed_forward.output_dense.weight
                assert torch.isin(weights, dense).all()

    settings = {"gates.final_values": "one", "gates.initial_drop": 0.5, "prune.steps": 1, "finish.steps": 0}
    overrides = {**OPTIONS["overrides"], **settings}
    Pruner(*data, tmp_path / "out", callbacks=[Values()], **{**OPTIONS, "overrides": overrides}).run()
