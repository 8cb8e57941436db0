"""Units that the controls keep."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from drawn import anatomies, random_encoder
from models import config
from slimvox.checkpoint.transformers_config import anatomy_from_config
from slimvox.encoder.weights import untrained_encoder
from slimvox.pruning.controls import CONTROLS, control_scores, resets_weights
from slimvox.pruning.gates import GateLayout
from slimvox.pruning.masks import masked_forward
from slimvox.structures import structure_names
from slimvox.structures.anatomy import EncoderAnatomy


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
    assume(layout.slices)  # a Whisper has no positional convolution
    scores = control_scores("magnitude", encoder, layout, seed)
    assert bool((scores >= 0).all()) and abs(float(scores.mean()) - 1) < 1e-4


@pytest.mark.parametrize("structure", structure_names())
def test_magnitudes_by_hand(structure: str) -> None:
    """Norms of what a gate takes out, over their mean; the second layer has twice the weights of the first."""
    anatomy = anatomy_from_config(
        config("wavlm", num_hidden_layers=2).to_dict(), "test", normalize_waveform=False
    )
    encoder = random_encoder(anatomy, 4)
    layers: Any = encoder.layers
    with torch.no_grad():
        for name, parameter in layers[1].named_parameters():
            parameter.copy_(2 * dict(layers[0].named_parameters())[name])

    def norms(layer: Any) -> Tensor:
        attention, block = layer.attention, layer.feed_forward
        rows = {name: getattr(attention, f"{name}_proj").weight.norm(dim=1) for name in ("q", "k", "v")}
        out, written = attention.out_proj.weight, block.output_dense.weight
        values = rows["v"] * out.norm(dim=0)
        return {
            "qk": rows["q"] * rows["k"],
            "vo": values,
            "head": values.view(anatomy.attention_heads, -1).mean(1),
            "attention": out.norm()[None],
            "feed_forward": written.norm()[None],
            "intermediate": block.intermediate_dense.weight.norm(dim=1) * written.norm(dim=0),
        }[structure]

    if structure == "position":
        expected = encoder.pos_conv_embed.conv.weight.permute(2, 0, 1).flatten(1).norm(dim=1)
    elif structure == "conv":
        convolutions: Any = encoder.feature_extractor.conv_layers
        expected = torch.cat([each.conv.weight.flatten(1).norm(dim=1) for each in convolutions])
    else:
        expected = torch.cat([norms(layer) for layer in layers])
    scores = control_scores("magnitude", encoder, GateLayout(anatomy, [structure]), 0)
    torch.testing.assert_close(scores, (expected / expected.mean()).detach())


def test_layers_are_dropped_from_the_top_blocks_before_their_contents() -> None:
    """In the order of the scores: what precedes the layers, then layer by layer its blocks, then their contents."""
    anatomy = anatomy_from_config(config("wavlm").to_dict(), "test", normalize_waveform=False)
    layout = GateLayout(anatomy, structure_names())
    scores = control_scores("top-layers", random_encoder(anatomy, 0), layout, 3)
    before, blocks = ("conv", "position"), ("attention", "feed_forward")
    steps = [[part for address, part in layout.slices.items() if address.structure in before]]
    for index in range(len(anatomy.layers)):
        own = {a: part for a, part in layout.slices.items() if a.structure not in before and a.index == index}
        steps.append([part for address, part in own.items() if address.structure in blocks])
        steps.append([part for address, part in own.items() if address.structure not in blocks])
    bounds = [
        (min(float(scores[part].min()) for part in step), max(float(scores[part].max()) for part in step))
        for step in steps
    ]
    for (lowest, _), (_, highest) in itertools.pairwise(bounds):
        assert lowest > highest
    inside = next(part for address, part in layout.slices.items() if address.structure == "intermediate")
    assert float(scores[inside].std()) > 0.01
    assert torch.equal(scores, control_scores("top-layers", random_encoder(anatomy, 1), layout, 3))
    assert not torch.equal(scores, control_scores("top-layers", random_encoder(anatomy, 0), layout, 4))


def test_random_scores_are_even_and_follow_the_seed() -> None:
    anatomy = anatomy_from_config(config("wavlm").to_dict(), "test", normalize_waveform=False)
    layout, encoder = GateLayout(anatomy, structure_names()), random_encoder(anatomy, 0)
    first, again, other = (control_scores("random", encoder, layout, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == (layout.size,)
    assert float(first.mean()) == pytest.approx(0.5, abs=0.05) and float(first.min()) >= 0
    assert [resets_weights(control) for control in (None, *CONTROLS)] == [False, False, False, False, True]


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
