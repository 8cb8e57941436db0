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
from slimvox.masks import masked_forward
from slimvox.pruning.controls import control_scores
from slimvox.structures import structure_names


@given(anatomy=anatomies(), seed=st.integers(0, 1000))
def test_weights_that_are_zero_go_first_by_magnitude(anatomy: EncoderAnatomy, seed: int) -> None:
    """Gates over weights that are zero change nothing, and must have the lowest scores."""
    encoder = random_encoder(anatomy, seed)
    layout = GateLayout(anatomy, ["intermediate"])
    silent = torch.rand(layout.size, generator=torch.Generator().manual_seed(seed)) < 0.3
    with torch.no_grad():
        for address, part in layout.slices.items():
            feed_forward: Any = encoder.layers[address.index].feed_forward
            feed_forward.output_dense.weight[:, silent[part]] = 0
    scores = control_scores("magnitude", encoder, layout, seed)
    assert torch.equal(scores == 0, silent)
    values = (~silent).float()
    waveforms = torch.randn(1, 800)
    plain = encoder(waveforms).last_hidden_state
    masked = masked_forward(encoder, layout.masks(values), waveforms).last_hidden_state
    torch.testing.assert_close(masked, plain, rtol=1e-4, atol=1e-5)


@given(anatomy=anatomies(), seed=st.integers(0, 1000), structure=st.sampled_from(structure_names()))
def test_magnitudes_average_one_within_each_kind(anatomy: EncoderAnatomy, seed: int, structure: Any) -> None:
    encoder = random_encoder(anatomy, seed)
    layout = GateLayout(anatomy, [structure])
    scores = control_scores("magnitude", encoder, layout, seed)
    assert bool((scores >= 0).all()) and abs(float(scores.mean()) - 1) < 1e-4


@given(anatomy=anatomies(), threshold=st.floats(0.05, 0.95))
def test_thin_cuts_every_width_by_the_same_share(anatomy: EncoderAnatomy, threshold: float) -> None:
    layout = GateLayout(anatomy, structure_names())
    scores = control_scores("thin", random_encoder(anatomy, 0), layout, 0)
    for address, part in layout.slices.items():
        if address.structure in ("attention", "feed_forward"):
            assert float(scores[part]) == 1
            continue
        for span in layout.spans(address):
            kept = int((scores[span] > threshold).sum())
            assert abs(kept - (span.stop - span.start) * (1 - threshold)) <= 0.5 + 1e-5


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
