"""What the controls keep."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from drawn import anatomies, random_encoder
from models import config
from slimvox.anatomy import EncoderAnatomy
from slimvox.checkpoint.transformers_reader import anatomy_from_config
from slimvox.encoder.untrained import untrained_encoder
from slimvox.gates import STRUCTURES, Structure, gate_groups, gate_spans, masks_from_vector
from slimvox.masks import masked_forward
from slimvox.pruning.controls import CONTROLS, control_scores, forgets_weights


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


@given(anatomy=anatomies(), seed=st.integers(0, 1000), structure=st.sampled_from(STRUCTURES))
def test_magnitudes_average_one_within_each_kind(anatomy: EncoderAnatomy, seed: int, structure: Any) -> None:
    encoder = random_encoder(anatomy, seed)
    groups = gate_groups(anatomy, [structure])
    scores = control_scores("magnitude", encoder, groups, seed)
    assert bool((scores >= 0).all()) and abs(float(scores.mean()) - 1) < 1e-4


@pytest.mark.parametrize("structure", STRUCTURES)
def test_magnitudes_by_hand(structure: Structure) -> None:
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

    if structure == "conv":
        convolutions: Any = encoder.feature_extractor.conv_layers
        expected = torch.cat([each.conv.weight.flatten(1).norm(dim=1) for each in convolutions])
    else:
        expected = torch.cat([norms(layer) for layer in layers])
    scores = control_scores("magnitude", encoder, gate_groups(anatomy, [structure]), 0)
    torch.testing.assert_close(scores, (expected / expected.mean()).detach())


def test_layers_are_dropped_from_the_top_blocks_before_their_insides() -> None:
    """In the order of the scores: the front end, then layer by layer its blocks, then what is in them."""
    anatomy = anatomy_from_config(config("wavlm").to_dict(), "test", normalize_waveform=False)
    groups = gate_groups(anatomy, STRUCTURES)
    scores = control_scores("top-layers", random_encoder(anatomy, 0), groups, 3)
    steps = [[each for each in groups if each.structure == "conv"]]
    for index in range(len(anatomy.layers)):
        of_layer = [each for each in groups if each.structure != "conv" and each.index == index]
        blocks = [each for each in of_layer if each.structure in ("attention", "feed_forward")]
        steps += [blocks, [each for each in of_layer if each not in blocks]]
    bounds = [
        (min(float(scores[g.slice].min()) for g in step), max(float(scores[g.slice].max()) for g in step))
        for step in steps
    ]
    for (lowest, _), (_, highest) in itertools.pairwise(bounds):
        assert lowest > highest
    inside = scores[next(each for each in groups if each.structure == "intermediate").slice]
    assert float(inside.std()) > 0.01
    assert torch.equal(scores, control_scores("top-layers", random_encoder(anatomy, 1), groups, 3))
    assert not torch.equal(scores, control_scores("top-layers", random_encoder(anatomy, 0), groups, 4))


def test_random_scores_are_even_and_follow_the_seed() -> None:
    anatomy = anatomy_from_config(config("wavlm").to_dict(), "test", normalize_waveform=False)
    groups, encoder = gate_groups(anatomy, STRUCTURES), random_encoder(anatomy, 0)
    first, again, other = (control_scores("random", encoder, groups, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == (groups[-1].stop,)
    assert float(first.mean()) == pytest.approx(0.5, abs=0.05) and float(first.min()) >= 0
    assert [forgets_weights(control) for control in (None, *CONTROLS)] == [False, False, False, False, True]


@given(anatomy=anatomies(), threshold=st.floats(0.05, 0.95))
def test_thin_cuts_every_width_by_the_same_share(anatomy: EncoderAnatomy, threshold: float) -> None:
    groups = gate_groups(anatomy, STRUCTURES)
    scores = control_scores("thin", random_encoder(anatomy, 0), groups, 0)
    for group in groups:
        if group.structure in ("attention", "feed_forward"):
            assert float(scores[group.start]) == 1
            continue
        spans = [(group.start, group.stop - group.start)] if group.structure == "head" else None
        for start, size in spans or gate_spans(anatomy, group):
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
