"""One stage of training by itself: weights, gates and multipliers move to where they should."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Literal

import pytest
import torch

from slimvox.comparison.distance import hidden_state_distance
from slimvox.encoder import SpeechEncoder
from slimvox.pruning.settings import GateSettings
from slimvox.structures import structure_names
from students import STILL, make_stage, make_student, make_teacher, one_step, train


@pytest.fixture(scope="module")
def teacher() -> SpeechEncoder:
    return make_teacher()


def distance(teacher: SpeechEncoder, student: SpeechEncoder) -> float:
    """Relative error on audio that no step saw."""
    measured = hidden_state_distance(
        teacher, student, [torch.randn(1, 3200, generator=torch.Generator().manual_seed(9))]
    )
    assert measured is not None
    return measured.relative_error


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
@pytest.mark.parametrize("maps", [False, True])
def test_the_weights_come_nearer_to_the_teacher(
    optimiser: str, maps: bool, teacher: SpeechEncoder, tmp_path: Path
) -> None:
    student = make_student(teacher, noise=0.3, maps=maps)
    before = distance(teacher, student.encoder)
    stage = make_stage(
        teacher, student, tmp_path, steps=20, learning_rate=3e-3, warmup_steps=2, matrix_optimiser=optimiser
    )
    losses = [record["distillation"] for record in train(stage, tmp_path)]
    assert losses[-1] < 0.6 * losses[0]
    assert distance(teacher, student.encoder) < 0.7 * before


@pytest.mark.parametrize("control", ["projection", "lagrangian"])
def test_the_weights_come_nearer_while_gates_close(
    control: str, teacher: SpeechEncoder, tmp_path: Path
) -> None:
    """The same seed and so the same masks, with and without training of the weights."""
    last = {}
    for rate in (STILL, 3e-3):
        quadratic = 20.0 if control == "lagrangian" else None
        student = make_student(teacher, noise=0.3, structures=["intermediate"], initial_quadratic=quadratic)
        stage = make_stage(
            teacher,
            student,
            tmp_path,
            sparsity=0.1,
            gates=GateSettings(learning_rate=0.05, multiplier_optimiser="sgd", multiplier_learning_rate=1.0),
            steps=20,
            learning_rate=rate,
        )
        last[rate] = train(stage, tmp_path)[-1]["distillation"]
    assert last[3e-3] < 0.6 * last[STILL]


@pytest.mark.parametrize("straight_through", [True, False])
@pytest.mark.parametrize("control", ["projection", "lagrangian"])
def test_gates_learn_which_dimensions_matter(
    control: str, straight_through: bool, teacher: SpeechEncoder, tmp_path: Path
) -> None:
    """A third of the feed-forward dimensions do nothing: theirs are the gates that have to close. The weights stand
    still, so that nothing but the gradient of the gates can tell them apart."""
    teacher = copy.deepcopy(teacher)
    student = make_student(
        teacher,
        structures=["intermediate"],
        straight_through=straight_through,
        initial_quadratic=200.0 if control == "lagrangian" else None,
    )
    assert student.gates is not None
    silent = torch.arange(student.gates.log_alpha.numel()) % 3 == 0
    with torch.no_grad():
        for address, part in student.gates.layout.slices.items():
            for encoder in (teacher, student.encoder):
                output = encoder.layers[address.index].feed_forward.output_dense  # type: ignore[union-attr]
                output.weight[:, silent[part]] = 0.0
                output.weight[:, ~silent[part]] *= 3.0
    stage = make_stage(
        teacher,
        student,
        tmp_path,
        sparsity=0.1,
        ramp_steps=10,
        gates=GateSettings(learning_rate=0.2, multiplier_optimiser="sgd", multiplier_learning_rate=1.0),
        steps=30,
        learning_rate=STILL,
    )
    sparsity = train(stage, tmp_path)[-1]["sparsity"]
    assert sparsity == pytest.approx(0.1, abs=0.02 if control == "lagrangian" else 1e-3)
    log_alpha = student.gates.log_alpha.detach()
    # The chance that a gate that matters is more open than one that does not.
    above = (log_alpha[~silent][:, None] > log_alpha[silent][None]).float().mean()
    assert float(above) > 0.9
    assert float(log_alpha[~silent].mean()) > 1.0 + float(log_alpha[silent].mean())


@pytest.mark.parametrize(
    ("control", "optimiser", "rate"),
    [("projection", "adam", 0.01), ("lagrangian", "adam", 0.01), ("lagrangian", "sgd", 10.0)],
)
def test_a_step_of_the_gates_alone_lowers_the_loss(
    control: str, optimiser: Literal["adam", "sgd"], rate: float, teacher: SpeechEncoder, tmp_path: Path
) -> None:
    """A small step, then the loss under the same noise: both optimisers go down its gradient. Without a target to
    climb to, the multipliers at 0, there is nothing but distillation."""
    student = make_student(
        teacher,
        structures=structure_names(),
        initial_drop=0.4,
        initial_quadratic=0.0 if control == "lagrangian" else None,
    )
    assert student.gates is not None
    stage = make_stage(
        teacher,
        student,
        tmp_path,
        sparsity=1e-9 if control == "lagrangian" else float(student.expected_sparsity().detach()),
        gates=GateSettings(optimiser=optimiser, learning_rate=rate, multiplier_learning_rate=STILL),
        learning_rate=STILL,
    )
    before = one_step(stage)["distillation"]
    after = one_step(stage)["distillation"]  # `step` was not counted up: the noise is the same
    assert after < before - 1e-4


def test_multipliers_ascend_and_close_the_gates(teacher: SpeechEncoder, tmp_path: Path) -> None:
    student = make_student(teacher, structures=structure_names(), initial_drop=0.05, initial_quadratic=0.0)
    settings = GateSettings(learning_rate=0.3, multiplier_learning_rate=1.0)
    stage = make_stage(teacher, student, tmp_path, sparsity=0.6, gates=settings, steps=15)
    records = train(stage, tmp_path)
    assert records[0]["penalty"] == 0
    for earlier, later in itertools.pairwise(records[:9]):
        # Below the target: lambda1 (s - t) and lambda2 (s - t)^2 grow where lambda1 falls and lambda2 rises.
        assert later["lambda1"] < earlier["lambda1"] < 0 < earlier["lambda2"] < later["lambda2"]
    assert records[-1]["sparsity"] > 0.2 + records[0]["sparsity"]
    for record in records[1:]:
        assert record["loss"] == pytest.approx(record["distillation"] + record["penalty"], rel=1e-5)
