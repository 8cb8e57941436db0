"""Each term of the distillation loss: what it is by hand, and that going down its gradient makes it smaller."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from slimvox.encoder import EncoderOutput
from slimvox.losses import ComparedStates, Loss, register_loss, temporal_relation_loss, unregister_loss
from slimvox.pruning.distillation import Distillation, HiddenFrames

SPEECH = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
HIDDEN = torch.tensor([[False, True, False, False, False, False], [True] + [False] * 5])
WIDTH, STATES = 5, 5
LAYERS = (0, 2, 4)


def states(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 6, WIDTH, generator=generator) for _ in range(STATES)]


def output(hidden_states: list[Tensor]) -> EncoderOutput:
    return EncoderOutput(
        hidden_states=tuple(hidden_states), last_hidden_state=hidden_states[-1], frame_mask=SPEECH
    )


def l1_by_hand(student: Tensor, teacher: Tensor, valid: Tensor) -> float:
    return float((student[valid] - teacher[valid]).abs().mean())


def cosine_by_hand(student: Tensor, teacher: Tensor, valid: Tensor) -> float:
    ours, theirs = student[valid], teacher[valid]
    return float((1 - (ours * theirs).sum(-1) / (ours.norm(dim=-1) * theirs.norm(dim=-1))).mean())


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize("hidden", [None, HIDDEN])
@pytest.mark.parametrize("group_means", [False, True])
def test_every_term_and_its_weight_by_hand(group_means: bool, hidden: Tensor | None) -> None:
    student, teacher = states(0), states(1)
    shown = SPEECH if hidden is None else SPEECH & ~hidden
    loss = Distillation(
        WIDTH,
        LAYERS,
        weights={"l1": 0.7, "cosine": 1.9, "relation": 2.3},
        maps=False,
        group_means=group_means,
    )
    compared = loss(
        output(student), output(teacher), None if hidden is None else HiddenFrames.of(hidden | ~SPEECH)
    )
    groups = [[0], [1, 2], [3, 4]] if group_means else [[0], [2], [4]]
    pairs = []
    for group in groups:
        ours, theirs = (torch.stack([each[index] for index in group]).mean(0) for each in (student, teacher))
        pairs.append((ours, theirs, SPEECH if group[-1] else shown))
    l1, cosine = mean([l1_by_hand(*pair) for pair in pairs]), mean([cosine_by_hand(*pair) for pair in pairs])
    relation = float(temporal_relation_loss(student, teacher, LAYERS, shown.float()))
    assert float(compared.terms["l1"]) == pytest.approx(l1, rel=1e-5)
    assert float(compared.terms["cosine"]) == pytest.approx(cosine, rel=1e-5)
    assert float(compared.terms["relation"]) == pytest.approx(relation, rel=1e-5)
    assert float(compared.total) == pytest.approx(0.7 * l1 + 1.9 * cosine + 2.3 * relation, rel=1e-5)
    assert relation > 0.01


def test_relations_of_states_and_of_passages_over_valid_frames_by_hand() -> None:
    student, teacher = states(2), states(3)

    def grams(each: list[Tensor], first: int, second: int, clip: int, frames: int) -> Tensor:
        a, b = (each[index][clip, :frames] for index in (first, second))
        a, b = (F.normalize(state - state.mean(0), dim=-1) for state in (a, b))
        return a @ b.T

    def difference(first: int, second: int) -> float:
        squares = [
            (grams(student, first, second, *part) - grams(teacher, first, second, *part)).square().flatten()
            for part in ((0, 6), (1, 4))
        ]
        return float(torch.cat(squares).mean())

    own = mean([difference(index, index) for index in LAYERS])
    passages = mean([difference(1, 2), difference(3, 4)])
    measured = temporal_relation_loss(student, teacher, LAYERS, SPEECH.float())
    assert float(measured) == pytest.approx(own + passages, rel=1e-5)


def test_state_0_has_a_map_of_its_own_and_the_others_share_one() -> None:
    loss = Distillation(WIDTH, LAYERS)
    first, shared = loss.first_map, loss.shared_map
    assert first is not None and shared is not None
    with torch.no_grad():
        first.weight.copy_(torch.randn(WIDTH, WIDTH))
        shared.weight.copy_(torch.randn(WIDTH, WIDTH))
        first.bias.fill_(0.3)
        shared.bias.fill_(-0.2)
    student, teacher = states(4), states(5)
    compared = loss(output(student), output(teacher))
    with torch.no_grad():
        mapped = [student[0] @ first.weight.T + 0.3, *(student[i] @ shared.weight.T - 0.2 for i in (2, 4))]
    pairs = [(ours, teacher[i], SPEECH) for ours, i in zip(mapped, LAYERS, strict=True)]
    assert float(compared.terms["l1"].detach()) == pytest.approx(
        mean([l1_by_hand(*each) for each in pairs]), rel=1e-5
    )
    assert float(compared.terms["cosine"].detach()) == pytest.approx(
        mean([cosine_by_hand(*each) for each in pairs]), rel=1e-5
    )
    assert Distillation(WIDTH, (1, 2)).first_map is None and Distillation(WIDTH, (0,)).shared_map is None


TERMS: dict[str, dict[str, Any]] = {
    "l1": {"weights": {"cosine": 0.0}},
    "cosine": {"weights": {"l1": 0.0}},
    "relation": {"weights": {"l1": 0.0, "cosine": 0.0, "relation": 1.0}},
    "groups": {"group_means": True},
    "all": {"weights": {"relation": 1.0}},
}


@pytest.mark.parametrize("term", TERMS)
def test_a_term_alone_brings_states_to_the_teachers(term: str) -> None:
    """Plain gradient descent on the states: what the term measures falls to a small part of what it was."""
    student = [state.requires_grad_() for state in states(6)]
    teacher = output(states(7))
    loss = Distillation(WIDTH, LAYERS, **{"maps": False, **TERMS[term]})
    totals = []
    descent = torch.optim.Adam(student, lr=0.05)
    for _ in range(60):
        compared = loss(output(student), teacher)
        descent.zero_grad()
        compared.total.backward()
        descent.step()
        totals.append(float(compared.total.detach()))
    assert totals[0] > 0.02 and totals[-1] < 0.3 * totals[0]
    used = {state for group in loss.groups for state in group}
    if loss.weights["relation"]:
        used |= {1, 3}  # what enters the layers whose outputs are compared
    for index, state in enumerate(student):
        assert (state.grad is not None) == (index in used)
        if state.grad is not None:
            assert bool((state.grad[SPEECH] != 0).any()) and bool((state.grad[~SPEECH] == 0).all())


@pytest.mark.parametrize("position", [0, 4])
def test_maps_learn_what_the_states_cannot(position: int) -> None:
    """The teacher is a rotation of the student: the map of that state has to become it."""
    rotation = torch.linalg.qr(torch.randn(WIDTH, WIDTH)).Q
    student = states(8)
    teacher = list(student)
    teacher[position] = student[position] @ rotation.T
    loss = Distillation(WIDTH, (position,))
    learned = loss.first_map if position == 0 else loss.shared_map
    assert learned is not None
    descent = torch.optim.Adam(loss.parameters(), lr=0.03)
    for _ in range(200):
        descent.zero_grad()
        loss(output(student), output(teacher)).total.backward()
        descent.step()
    torch.testing.assert_close(learned.weight.detach(), rotation, atol=0.15, rtol=0)


class Product(Loss):
    """A loss from outside the package with a matrix product, which autocast would cast."""

    name = "product"
    title = "Product"

    def __call__(self, states: ComparedStates) -> Tensor:
        """The mean square of the difference of projections."""
        basis = torch.linspace(-1, 1, WIDTH * 2).view(WIDTH, 2)
        pairs = zip(states.mapped, states.targets, strict=True)
        return torch.stack([((mapped - target) @ basis).square().mean() for mapped, target in pairs]).sum()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_computed_in_float32_under_autocast(dtype: torch.dtype) -> None:
    register_loss(Product())
    try:
        weights = {"l1": 1.0, "cosine": 1.0, "relation": 1.0, "product": 1.0}
        loss = Distillation(WIDTH, LAYERS, weights=weights, maps=False)
        student, teacher = output(states(0)), output(states(1))
        expected = loss(student, teacher).terms
        with torch.autocast("cpu", dtype):
            terms = loss(student, teacher).terms
    finally:
        unregister_loss("product")
    assert set(terms) == set(weights)
    for name, term in terms.items():
        assert torch.equal(term, expected[name]), name
