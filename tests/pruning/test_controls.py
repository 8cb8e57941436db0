"""What the controls keep."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from drawn import anatomies, random_encoder
from slimvox.anatomy import EncoderAnatomy
from slimvox.encoder.untrained import untrained_encoder
from slimvox.gates import GateLayout
from slimvox.structures import structure_names
from slimvox.masks import masked_forward
from slimvox.pruning.controls import control_scores


@given(anatomy=anatomies(), seed=st.integers(0, 1000))
def test_weights_that_are_zero_go_first_by_magnitude(anatomy: EncoderAnatomy, seed: int) -> None:
    """Gates over weights that are zero change nothing, and must have the lowest scores."""
    encoder = random_encoder(anatomy, seed)
    groups = gate_groups(anatomy, ["intermediate"])
    silent = torch.rand(groups[-1].stop, generator=torch.Generator().manual_seed(seed)) < 0.3
    with torch.no_grad():
        for group in groups:
            feed_forward: Any = encoder.layers[group.index].feed_forward
            feed_forward.output_dense.weight[:, silent[group.slice]] = 0
    scores = control_scores("magnitude", encoder, groups, seed)
    assert torch.equal(scores == 0, silent)
    values = (~silent).float()
    waveforms = torch.randn(1, 800)
    plain = encoder(waveforms).last_hidden_state
    masked = masked_forward(encoder, masks_from_vector(anatomy, groups, values), waveforms).last_hidden_state
    torch.testing.assert_close(masked, plain, rtol=1e-4, atol=1e-5)


@given(anatomy=anatomies(), seed=st.integers(0, 1000), structure=st.sampled_from(structure_names()))
def test_magnitudes_average_one_within_each_kind(anatomy: EncoderAnatomy, seed: int, structure: Any) -> None:
    encoder = random_encoder(anatomy, seed)
    groups = gate_groups(anatomy, [structure])
    scores = control_scores("magnitude", encoder, groups, seed)
    assert bool((scores >= 0).all()) and abs(float(scores.mean()) - 1) < 1e-4


@given(anatomy=anatomies(), threshold=st.floats(0.05, 0.95))
def test_thin_cuts_every_width_by_the_same_share(anatomy: EncoderAnatomy, threshold: float) -> None:
    groups = gate_groups(anatomy, structure_names())
    scores = control_scores("thin", random_encoder(anatomy, 0), groups, 0)
    for group in groups:
        if group.structure in ("attention", "feed_forward"):
            assert float(scores[group.start]) == 1
        elif group.structure != "head":
            for start, size in gate_spans(anatomy, group):
                kept = int((scores[start : start + size] > threshold).sum())
                assert abs(kept - size * (1 - threshold)) <= 0.5 + 1e-5


@given(anatomy=anatomies())
def test_untrained_encoders_depend_on_the_seed_alone(anatomy: EncoderAnatomy) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = untrained_encoder(anatomy, seed=1).state_dict()
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(9)
    second = untrained_encoder(anatomy, seed=1).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
