"""Masks against a definition of their own: hooks that scale activations; survivors of single masks by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from drawn import odd_encoder, random_encoder
from slimvox.encoder import SpeechEncoder
from slimvox.pruning.masks import masked_forward, scale_parameters
from slimvox.pruning.surgery import slice_encoder, survivors
from slimvox.structures import Address, structure
from slimvox.structures.kept_indices import KeptIndices
from slimvox.structures.parts import ConvAnatomy, HeadAnatomy, dense_layer
from slimvox.structures.units import units
from small_encoders import wavlm

ANATOMY = wavlm(
    convolutions=tuple(ConvAnatomy(channels=4, kernel=k, stride=s) for k, s in ((10, 5), (3, 2), (2, 2))),
    conv_bias=True,
    width=8,
    position_kernel=4,
    attention_heads=2,
    layers=(dense_layer(heads=2, head_width=4, intermediate=6),) * 2,
)
VALUES = {
    "conv": torch.tensor([0.2, 0.4, 0.9, 0.6]),
    "position": torch.linspace(0.4, 0.9, 4),
    "attention": torch.tensor([0.3]),
    "head": torch.tensor([0.6, 0.2]),
    "qk": torch.linspace(0.2, 0.9, 8),
    "vo": torch.linspace(0.9, 0.3, 8),
    "feed_forward": torch.tensor([0.7]),
    "intermediate": torch.linspace(0.1, 1.0, 6),
}
ADDRESSES = {
    **{f"conv{index}": Address("conv", index) for index in range(3)},
    **{name: Address(name, 0 if name == "position" else 1) for name in VALUES if name != "conv"},
}
"""Each convolution, the positional one, and the structures of the second layer."""


def only(name: str) -> dict[Address, Tensor]:
    """One mask alone."""
    address = ADDRESSES[name]
    return {address: VALUES[address.structure]}


def scaling(factor: Tensor) -> Callable[..., Any]:
    return lambda module, inputs, output: output * factor


def hook(encoder: SpeechEncoder, name: str) -> None:
    """Scale what the mask is said to scale, where it is computed."""
    layer: Any = encoder.layers[1]
    front: Any = encoder.feature_extractor.conv_layers
    channels = VALUES["conv"]
    targets: dict[str, tuple[nn.Module, Tensor]] = {
        "conv0": (front[0], channels[:, None]),
        "conv1": (front[1], channels[:, None]),
        # After the norm over the last channels, which would undo it.
        "conv2": (encoder.feature_projection.layer_norm, channels),  # type: ignore[dict-item]
        "head": (layer.attention.v_proj, torch.repeat_interleave(VALUES["head"], 4)),
        "qk": (layer.attention.q_proj, VALUES["qk"]),
        "vo": (layer.attention.v_proj, VALUES["vo"]),
        "attention": (layer.attention, VALUES["attention"]),
        "feed_forward": (layer.feed_forward, VALUES["feed_forward"]),
    }
    if name == "intermediate":
        layer.feed_forward.output_dense.register_forward_pre_hook(
            lambda _, inputs: inputs[0] * VALUES["intermediate"]
        )
    elif name == "position":
        # A convolution is linear in its taps: one convolution for each of them.
        taps = [copy.deepcopy(encoder.pos_conv_embed.conv) for _ in range(4)]
        with torch.no_grad():
            for tap, convolution in enumerate(taps):
                convolution.weight[:, :, [i for i in range(4) if i != tap]] = 0
        bias = encoder.pos_conv_embed.conv.bias[:, None]

        def summed(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            parts = [convolution(*inputs) - bias for convolution in taps]
            return sum((a * b for a, b in zip(parts, VALUES["position"], strict=True)), bias)

        encoder.pos_conv_embed.conv.register_forward_hook(summed)
    else:
        module, factor = targets[name]
        module.register_forward_hook(scaling(factor))


NAMES = tuple(ADDRESSES)


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_scales_what_it_is_said_to_scale(name: str) -> None:
    encoder, waveforms = random_encoder(ANATOMY, 3), torch.randn(2, 700)
    plain = encoder(waveforms).last_hidden_state
    masked = masked_forward(encoder, only(name), waveforms).last_hidden_state
    hook(encoder, name)
    torch.testing.assert_close(masked, encoder(waveforms).last_hidden_state, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(masked, plain, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_masks_and_weights(name: str) -> None:
    encoder, masks = random_encoder(ANATOMY, 3), only(name)
    mask = masks[ADDRESSES[name]]
    mask.requires_grad_(True)
    try:
        output = masked_forward(encoder, masks, torch.randn(1, 700)).last_hidden_state
        output.square().mean().backward()
        assert mask.grad is not None and bool((mask.grad != 0).all())
    finally:
        mask.requires_grad_(False)
        mask.grad = None
    layer: Any = encoder.layers[1]
    assert float(layer.attention.q_proj.weight.grad.abs().sum()) > 0


def test_only_what_is_masked_is_scaled() -> None:
    parameters = dict(random_encoder(ANATOMY, 0).named_parameters())
    assert scale_parameters(parameters, {}, ANATOMY) == {}
    attention, feed_forward = "layers.1.attention.", "layers.1.feed_forward."
    expected = {
        "conv0": {"feature_extractor.conv_layers.1.conv.weight"},
        "conv2": {"feature_projection.projection.weight"},
        "position": {"pos_conv_embed.conv.weight"},
        "attention": {attention + "out_proj.weight", attention + "out_proj.bias"},
        "head": {attention + "v_proj.weight", attention + "v_proj.bias"},
        "qk": {attention + "q_proj.weight", attention + "q_proj.bias"},
        "vo": {attention + "v_proj.weight", attention + "v_proj.bias"},
        "feed_forward": {feed_forward + "output_dense.weight", feed_forward + "output_dense.bias"},
        "intermediate": {feed_forward + "output_dense.weight"},
    }
    for name, names in expected.items():
        assert set(scale_parameters(parameters, only(name), ANATOMY)) == names
    weight = feed_forward + "output_dense.weight"
    scaled = scale_parameters(parameters, {**only("feed_forward"), **only("intermediate")}, ANATOMY)
    torch.testing.assert_close(scaled[weight], parameters[weight] * VALUES["intermediate"] * 0.7)
    bias = feed_forward + "output_dense.bias"
    torch.testing.assert_close(scaled[bias], parameters[bias] * 0.7)


def test_values_are_scaled_by_their_head_and_their_own_mask() -> None:
    heads = (HeadAnatomy(index=0, qk=1, vo=1), HeadAnatomy(index=1, qk=1, vo=3))
    anatomy = replace(ANATOMY, layers=(replace(ANATOMY.layers[0], heads=heads),))
    parameters = dict(random_encoder(anatomy, 0).named_parameters())
    head = {Address("head", 0): torch.tensor([0.5, 2.0])}
    both = {**head, Address("vo", 0): torch.tensor([1.0, 2.0, 3.0, 4.0])}
    for masks, expected in ((head, [0.5, 2.0, 2.0, 2.0]), (both, [0.5, 4.0, 6.0, 8.0])):
        scaled = scale_parameters(parameters, masks, anatomy)
        for part in ("weight", "bias"):
            name = f"layers.0.attention.v_proj.{part}"
            rows = torch.tensor(expected).view(-1, *[1] * (parameters[name].dim() - 1))
            torch.testing.assert_close(scaled[name], parameters[name] * rows)


def test_norms_count_the_channels_that_are_not_zero() -> None:
    conv = structure("conv")
    assert conv.forward_arguments(ANATOMY, {}) == {}
    some = {Address("conv", 1): torch.tensor([0.2, 0.0, 1.0, 0.0])}
    kept = conv.forward_arguments(ANATOMY, some)["kept_channels"]
    assert kept[0] is None and kept[2] is None and kept[1].tolist() == [1, 0, 1, 0]


def survivors_of(**masks: list[float]) -> dict[str, tuple[int, ...]]:
    """Counts that are left in the second layer; everything else is kept."""
    given = {Address(name, 1): torch.tensor(values) for name, values in masks.items()}
    kept, everything = survivors(ANATOMY, given), KeptIndices.everything(ANATOMY)
    left = {}
    for address, whole in everything.units.items():
        if structure(address.structure).per_layer and address.index == 1:
            left[address.structure] = kept[address]
        else:
            assert kept[address] == whole
    return left


def test_survivors_of_single_masks_by_hand() -> None:
    every, half = tuple(range(8)), [1.0] * 4 + [0.0] * 4
    whole = {
        "attention": (0,),
        "head": (0, 1),
        "qk": every,
        "vo": every,
        "feed_forward": (0,),
        "intermediate": tuple(range(6)),
    }
    assert survivors_of() == whole
    no_attention = dict.fromkeys(("attention", "head", "qk", "vo"), ())
    assert survivors_of(attention=[0.0]) == {**whole, **no_attention}
    assert survivors_of(attention=[0.01]) == whole
    assert survivors_of(feed_forward=[0.0]) == {**whole, "feed_forward": (), "intermediate": ()}
    assert survivors_of(intermediate=[0.0, 1.0, 0.0, 0.5, 0.0, 0.0]) == {**whole, "intermediate": (1, 3)}
    second = {"head": (1,), "qk": (4, 5, 6, 7), "vo": (4, 5, 6, 7)}
    assert survivors_of(head=[0.0, 1e-9]) == {**whole, **second}
    # A head without values goes; one without queries stays, and attends by position alone.
    first = {"head": (0,), "qk": (0, 1, 2, 3), "vo": (0, 1, 2, 3)}
    assert survivors_of(vo=half) == {**whole, **first}
    assert survivors_of(qk=half) == {**whole, "qk": (0, 1, 2, 3)}
    odd = [0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    assert survivors_of(qk=odd, head=[1.0, 1.0], vo=odd) == {**whole, "qk": (1, 2, 4), "vo": (1, 2, 4)}
    assert survivors_of(head=[0.0, 0.0]) == {**whole, "head": (), "qk": (), "vo": ()}
    kept = survivors(ANATOMY, {Address("conv", 0): torch.tensor([0.0, 0.3, 0.0, 1.0])})
    assert (kept["conv", 0], kept["conv", 1]) == ((1, 3), (0, 1, 2, 3))
    kept = survivors(ANATOMY, {Address("position", 0): torch.tensor([0.0, 0.3, 0.0, 1.0])})
    assert kept["position", 0] == (1, 3) and kept.anatomy(ANATOMY).position_taps == ((1, 3),)


def test_indices_are_those_of_the_first_encoder_after_any_number_of_cuts() -> None:
    """Heads keep their index, and units their number in the weights of the first encoder."""
    encoder = odd_encoder()
    everything = KeptIndices.everything(encoder.anatomy)
    assert [head.index for head in encoder.anatomy.layers[0].heads] == [0, 2]
    uneven = survivors(encoder.anatomy, {Address("vo", 0): torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0])})
    assert (uneven["head", 0], uneven["qk", 0], uneven["vo", 0]) == ((0, 1), (0, 1, 2), (0, 1, 2, 4))
    cut = slice_encoder(encoder, {Address("head", 0): torch.tensor([0.0, 1.0])})
    assert (cut.kept["head", 0], cut.kept["qk", 0], cut.kept["vo", 0]) == ((1,), (), (4,))
    assert [head.index for head in cut.encoder.anatomy.layers[0].heads] == [2]
    earlier = KeptIndices(
        units={address: tuple(3 * unit + 1 for unit in kept) for address, kept in everything.units.items()}
    )
    other = {Address("head", 0): torch.tensor([1.0, 0.0]), Address("qk", 0): torch.tensor([0.0, 1.0, 1.0])}
    again = slice_encoder(encoder, other).kept.within(earlier)
    assert (again["head", 0], again["qk", 0], again["vo", 0]) == ((1,), (4, 7), (1, 4, 7, 10))
    both = cut.kept.within(earlier)
    assert (both["head", 0], both["qk", 0], both["vo", 0]) == ((4,), (), (13,))
    assert (both["intermediate", 0], both["intermediate", 4]) == ((1,), (1, 4, 7, 10, 13))
    assert both["conv", 0] == (1, 4, 7, 10, 13)


def test_surgery_leaves_the_encoder_alone_and_keeps_its_mode_and_type() -> None:
    encoder = random_encoder(ANATOMY, 0).double().train()
    before = {name: weights.clone() for name, weights in encoder.state_dict().items()}
    double = {address: VALUES[address.structure].double() for address in units(ANATOMY).sizes}
    sliced = slice_encoder(encoder, double).encoder
    assert all(torch.equal(weights, before[name]) for name, weights in encoder.state_dict().items())
    assert sliced.training and next(sliced.parameters()).dtype == torch.float64
    assert all(parameter.requires_grad for parameter in sliced.parameters())
    assert not slice_encoder(encoder.eval(), double).encoder.training
