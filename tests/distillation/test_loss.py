"""The distillation loss and its options, against values by hand and laws."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from drawn import anatomies, random_encoder
from slimvox.encoder import EncoderOutput
from slimvox.losses import temporal_relation_loss
from slimvox.pruning.distillation import (
    Distillation,
    HiddenFrames,
    distilled_layers,
    draw_hidden,
    hide_frames,
    layer_groups,
)
from slimvox.pruning.distillation.masked_input import SPAN_FRAMES
from slimvox.structures.anatomy import EncoderAnatomy


def output(states: list[torch.Tensor], speech: torch.Tensor) -> EncoderOutput:
    return EncoderOutput(hidden_states=tuple(states), last_hidden_state=states[-1], frame_mask=speech)


@pytest.mark.parametrize(
    ("layers", "chosen"), [(12, (0, 4, 8, 12)), (24, (0, 8, 16, 24)), (3, (0, 1, 2, 3)), (1, (0, 1))]
)
def test_distilled_layers_are_evenly_spaced(layers: int, chosen: tuple[int, ...]) -> None:
    assert distilled_layers(layers) == chosen


@given(layers=st.integers(1, 24), count=st.integers(1, 26))
def test_groups_end_at_the_chosen_layers_and_overlap_nowhere(layers: int, count: int) -> None:
    chosen = distilled_layers(layers, count)
    groups = layer_groups(chosen)
    assert tuple(group[-1] for group in groups) == chosen
    assert [index for group in groups for index in group] == list(range(chosen[0], layers + 1))


def test_a_copy_has_no_loss_and_its_opposite_a_loss_by_hand() -> None:
    speech = torch.tensor([[True, True, False]])
    states = [torch.randn(1, 3, 4) for _ in range(3)]
    loss = Distillation(4, (0, 2), weights={"relation": 1.0})
    same = loss(output(states, speech), output(states, speech))
    assert float(same.total.detach()) == pytest.approx(0, abs=1e-6)
    opposite = loss(output([-state for state in states], speech), output(states, speech))
    expected = torch.stack([(2 * states[i][:, :2]).abs().mean() for i in (0, 2)]).mean()
    assert float(opposite.terms["l1"].detach()) == pytest.approx(float(expected), rel=1e-5)
    assert float(opposite.terms["cosine"].detach()) == pytest.approx(2.0, rel=1e-5)
    assert float(opposite.terms["relation"].detach()) == pytest.approx(0, abs=1e-6)
    assert float(opposite.total.detach()) == pytest.approx(float(expected) + 2, rel=1e-5)


def test_without_maps_there_is_nothing_to_learn() -> None:
    assert list(Distillation(4, (0, 2), maps=False).parameters()) == []
    assert len(list(Distillation(4, (0, 2)).parameters())) == 4
    speech, states = torch.ones(1, 3, dtype=torch.bool), [torch.randn(1, 3, 4) for _ in range(3)]
    other = [torch.randn_like(state) for state in states]
    bare, mapped = Distillation(4, (0, 2), maps=False), Distillation(4, (0, 2))
    # The maps start as the identity.
    assert float(bare(output(other, speech), output(states, speech)).total) == pytest.approx(
        float(mapped(output(other, speech), output(states, speech)).total.detach()), rel=1e-6
    )


def test_group_means_compare_means() -> None:
    """An error in one state of a group counts as much as the opposite error in another: together they are none."""
    speech = torch.ones(1, 5, dtype=torch.bool)
    states = [torch.randn(1, 5, 4) for _ in range(5)]
    error = torch.randn(1, 5, 4)
    other = [states[0], states[1] + error, states[2] - error, states[3], states[4]]
    grouped = Distillation(4, (0, 2, 4), maps=False, group_means=True)
    single = Distillation(4, (0, 2, 4), maps=False)
    assert float(grouped(output(other, speech), output(states, speech)).total) == pytest.approx(0, abs=1e-5)
    assert float(single(output(other, speech), output(states, speech)).terms["l1"]) == pytest.approx(
        float(error.abs().mean()) / 3, rel=1e-5
    )


@given(seed=st.integers(0, 2**31), scale=st.floats(0.1, 10))
def test_relations_do_not_see_rotation_scale_and_shift(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    states = [torch.randn(2, 7, 6, generator=generator) for _ in range(3)]
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=generator)).Q
    shift = torch.randn(6, generator=generator)
    moved = [scale * state @ rotation + shift for state in states]
    loss = temporal_relation_loss(moved, states, (0, 2), torch.ones(2, 7))
    assert float(loss) == pytest.approx(0, abs=1e-8)


def test_relations_by_hand() -> None:
    """Two frames: the correlation between them is always -1 after centring, so three are needed."""
    speech = torch.ones(1, 3)
    teacher, student = torch.randn(1, 3, 4), torch.randn(1, 3, 4)

    def gram(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        first, second = (F.normalize(each[0] - each[0].mean(0), dim=-1) for each in (first, second))
        return first @ second.T

    by_hand = (gram(student, student) - gram(teacher, teacher)).square().mean()
    assert float(temporal_relation_loss([student], [teacher], (0,), speech)) == pytest.approx(
        float(by_hand), rel=1e-5
    )
    before, after = torch.randn(1, 3, 4), torch.randn(1, 3, 4)
    own = (gram(after, after) - gram(student, student)).square().mean()
    passage = (gram(before, after) - gram(teacher, student)).square().mean()
    assert float(temporal_relation_loss([before, after], [teacher, student], (1,), speech)) == pytest.approx(
        float(own + passage), rel=1e-5
    )


def test_padding_has_no_say() -> None:
    speech = torch.tensor([[True] * 4 + [False] * 2])
    teacher = [torch.randn(1, 6, 4) for _ in range(3)]
    student = [torch.randn(1, 6, 4) for _ in range(3)]
    noisy = [torch.cat([state[:, :4], torch.randn(1, 2, 4)], dim=1) for state in student]
    loss = Distillation(4, (0, 2), weights={"relation": 2.0}, group_means=True)
    first = loss(output(student, speech), output(teacher, speech)).total
    second = loss(output(noisy, speech), output(teacher, speech)).total
    assert float(first.detach()) == pytest.approx(float(second.detach()), rel=1e-6)


def test_frames_that_were_hidden_do_not_count_before_the_transformer() -> None:
    speech = torch.ones(1, 4, dtype=torch.bool)
    hidden = HiddenFrames.of(torch.tensor([[False, True, False, False]]))
    states = [torch.randn(1, 4, 3) for _ in range(2)]
    first_wrong = [states[0].clone(), states[1]]
    first_wrong[0][:, 1] += 5.0
    second_wrong = [states[0], states[1].clone()]
    second_wrong[1][:, 1] += 5.0
    loss = Distillation(3, (0, 1), maps=False)
    assert float(loss(output(first_wrong, speech), output(states, speech), hidden).total) == pytest.approx(
        0, abs=1e-6
    )
    assert float(
        loss(output(second_wrong, speech), output(states, speech), hidden).terms["l1"]
    ) == pytest.approx(5 / 4 / 2, rel=1e-5)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.65])
def test_hidden_frames_come_in_spans_and_in_the_share_asked_for(share: float) -> None:
    hidden = draw_hidden((400, 200), share, torch.Generator().manual_seed(0))
    assert float(hidden.float().mean()) == pytest.approx(share, abs=0.02)
    by_frame = hidden.float().mean(0)
    assert float(by_frame[:SPAN_FRAMES].mean()) == pytest.approx(share, abs=0.05)
    inside = hidden[:, SPAN_FRAMES:-SPAN_FRAMES]
    for row in inside[:50].tolist():
        runs = "".join("x" if each else " " for each in row).strip().split()
        assert all(len(run) >= SPAN_FRAMES for run in runs[1:-1])


@given(anatomy=anatomies(), seed=st.integers(0, 1000))
def test_hiding_lasts_as_long_as_it_should(anatomy: EncoderAnatomy, seed: int) -> None:
    encoder, waveforms = random_encoder(anatomy, seed), torch.randn(2, 1600)
    plain = encoder(waveforms).last_hidden_state
    hidden = draw_hidden((2, plain.shape[1]), 0.9, torch.Generator().manual_seed(seed))
    with hide_frames(encoder, hidden):
        masked = encoder(waveforms)
    if bool(hidden.any()) and anatomy.width > 2:  # two normalised numbers are 1 and -1, whatever they were
        assert not torch.equal(plain, masked.last_hidden_state)
    assert torch.equal(encoder(waveforms).last_hidden_state, plain)
    with hide_frames(encoder, None):
        assert torch.equal(encoder(waveforms).last_hidden_state, plain)
