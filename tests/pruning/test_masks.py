"""Masks against a definition of their own: hooks that scale activations; survivors of single masks by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from drawn import odd_encoder, random_encoder
from slimvox.anatomy import ConvAnatomy, EncoderAnatomy, HeadAnatomy, dense_layer
from slimvox.encoder import SpeechEncoder
from slimvox.kept_indices import KeptHead, KeptIndices, KeptLayer
from slimvox.masks import EncoderMasks, LayerMasks, masked_forward, scale_parameters, value_scale
from slimvox.surgery import slice_encoder, survivors

ANATOMY = EncoderAnatomy(
    family="wavlm",
    convolutions=tuple(ConvAnatomy(channels=4, kernel=k, stride=s) for k, s in ((10, 5), (3, 2), (2, 2))),
    conv_norm="group",
    conv_bias=True,
    projection_norm=True,
    width=8,
    position_kernel=4,
    position_groups=2,
    attention_heads=2,
    layers=(dense_layer(heads=2, head_width=4, intermediate=6),) * 2,
    pre_norm=False,
    layer_norm_eps=1e-5,
    position_buckets=16,
    position_max_distance=24,
)
LAYER = LayerMasks(
    attention=torch.tensor(0.3),
    head=torch.tensor([0.6, 0.2]),
    qk=torch.linspace(0.2, 0.9, 8),
    vo=torch.linspace(0.9, 0.3, 8),
    feed_forward=torch.tensor(0.7),
    intermediate=torch.linspace(0.1, 1.0, 6),
)
CONV = torch.tensor([0.2, 0.4, 0.9, 0.6])


def only(name: str) -> EncoderMasks:
    """One mask in the second layer, or in one convolution (`conv0` and so on)."""
    if name.startswith("conv"):
        conv: list[Tensor | None] = [None] * 3
        conv[int(name[-1])] = CONV
        return EncoderMasks(conv=tuple(conv), layers=(LayerMasks(), LayerMasks()))
    one = LayerMasks(**{name: getattr(LAYER, name)})
    return EncoderMasks(conv=(None,) * 3, layers=(LayerMasks(), one))


def scaling(factor: Tensor) -> Callable[..., Any]:
    return lambda module, inputs, output: output * factor


def hook(encoder: SpeechEncoder, name: str) -> None:
    """Scale what the mask is said to scale, where it is computed."""
    layer: Any = encoder.layers[1]
    front: Any = encoder.feature_extractor.conv_layers
    per_head = torch.repeat_interleave(LAYER.head, 4)  # type: ignore[arg-type]
    targets: dict[str, tuple[nn.Module, Tensor]] = {
        "conv0": (front[0], CONV[:, None]),
        "conv1": (front[1], CONV[:, None]),
        # After the norm over the last channels, which would undo it.
        "conv2": (encoder.feature_projection.layer_norm, CONV),  # type: ignore[dict-item]
        "attention": (layer.attention, LAYER.attention),
        "head": (layer.attention.v_proj, per_head),
        "qk": (layer.attention.q_proj, LAYER.qk),
        "vo": (layer.attention.v_proj, LAYER.vo),
        "feed_forward": (layer.feed_forward, LAYER.feed_forward),
    }
    if name == "intermediate":
        layer.feed_forward.output_dense.register_forward_pre_hook(
            lambda _, inputs: inputs[0] * LAYER.intermediate
        )
    else:
        module, factor = targets[name]
        module.register_forward_hook(scaling(factor))


NAMES = ("conv0", "conv1", "conv2", "attention", "head", "qk", "vo", "feed_forward", "intermediate")


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
    mask = masks.conv[int(name[-1])] if name.startswith("conv") else getattr(masks.layers[1], name)
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
    assert scale_parameters(parameters, EncoderMasks.none(ANATOMY), ANATOMY) == {}
    attention, feed_forward = "layers.1.attention.", "layers.1.feed_forward."
    expected = {
        "conv0": {"feature_extractor.conv_layers.1.conv.weight"},
        "conv2": {"feature_projection.projection.weight"},
        "attention": {attention + "out_proj.weight", attention + "out_proj.bias"},
        "head": {attention + "v_proj.weight", attention + "v_proj.bias"},
        "qk": {attention + "q_proj.weight", attention + "q_proj.bias"},
        "vo": {attention + "v_proj.weight", attention + "v_proj.bias"},
        "feed_forward": {feed_forward + "output_dense.weight", feed_forward + "output_dense.bias"},
        "intermediate": {feed_forward + "output_dense.weight"},
    }
    for name, names in expected.items():
        assert set(scale_parameters(parameters, only(name), ANATOMY)) == names
    both = replace(LAYER, attention=None, qk=None, head=None, vo=None)
    masks = EncoderMasks(conv=(None,) * 3, layers=(LayerMasks(), both))
    scaled = scale_parameters(parameters, masks, ANATOMY)[feed_forward + "output_dense.weight"]
    assert torch.equal(scaled, parameters[feed_forward + "output_dense.weight"] * LAYER.intermediate * 0.7)


def test_values_are_scaled_by_their_head_and_their_own_mask() -> None:
    heads = (HeadAnatomy(index=0, qk=1, vo=1), HeadAnatomy(index=1, qk=1, vo=3))
    layer = replace(ANATOMY.layers[0], heads=heads)
    head, vo = torch.tensor([0.5, 2.0]), torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert value_scale(layer, LayerMasks()) is None
    assert value_scale(layer, LayerMasks(vo=vo)) is vo
    for masks, expected in (
        (LayerMasks(head=head), [0.5, 2.0, 2.0, 2.0]),
        (LayerMasks(head=head, vo=vo), [0.5, 4.0, 6.0, 8.0]),
    ):
        scale = value_scale(layer, masks)
        assert scale is not None and scale.tolist() == expected


def test_norms_count_the_channels_that_are_not_zero() -> None:
    masks = EncoderMasks.none(ANATOMY)
    assert masks.kept_channels() is None
    some = replace(masks, conv=(None, torch.tensor([0.2, 0.0, 1.0, 0.0]), None)).kept_channels()
    assert some is not None and some[0] is None and some[2] is None
    assert some[1] is not None and some[1].tolist() == [1, 0, 1, 0]


def survivors_of(**masks: list[float] | float) -> KeptLayer:
    tensors = {name: torch.tensor(value) for name, value in masks.items()}
    kept = survivors(ANATOMY, EncoderMasks(conv=(None,) * 3, layers=(LayerMasks(), LayerMasks(**tensors))))
    everything = KeptIndices.everything(ANATOMY)
    assert kept.conv == everything.conv and kept.layers[0] == everything.layers[0]
    return kept.layers[1]


def test_survivors_of_single_masks_by_hand() -> None:
    whole, (first, second) = KeptIndices.everything(ANATOMY).layers[1], (0, 1)
    all_four, half = (0, 1, 2, 3), [1.0] * 4 + [0.0] * 4
    assert survivors_of() == whole
    assert survivors_of(attention=0.0) == replace(whole, attention=False, heads=())
    assert survivors_of(attention=0.01) == whole
    assert survivors_of(feed_forward=0.0) == replace(whole, feed_forward=False, intermediate=())
    assert survivors_of(intermediate=[0.0, 1.0, 0.0, 0.5, 0.0, 0.0]) == replace(whole, intermediate=(1, 3))
    assert survivors_of(head=[0.0, 1e-9]) == replace(whole, heads=(whole.heads[second],))
    # A head without values goes; one without queries stays, and attends by position alone.
    assert survivors_of(vo=half) == replace(whole, heads=(whole.heads[first],))
    assert survivors_of(qk=half) == replace(
        whole, heads=(whole.heads[first], KeptHead(index=1, qk=(), vo=all_four))
    )
    odd = [0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    assert survivors_of(qk=odd, head=[1.0, 1.0], vo=odd).heads == (
        KeptHead(index=0, qk=(1, 2), vo=(1, 2)),
        KeptHead(index=1, qk=(0,), vo=(0,)),
    )
    assert survivors_of(head=[0.0, 0.0]) == replace(whole, heads=())
    conv = (torch.tensor([0.0, 0.3, 0.0, 1.0]), None, None)
    kept = survivors(ANATOMY, replace(EncoderMasks.none(ANATOMY), conv=conv))
    assert kept.conv == ((1, 3), all_four, all_four)


def test_indices_are_those_of_the_first_encoder_after_any_number_of_cuts() -> None:
    """Heads keep their index, dimensions theirs within the head, wherever those were in the encoder before."""
    encoder = odd_encoder()
    dense = KeptIndices.everything(encoder.anatomy)
    heads = dense.layers[0].heads
    assert [head.index for head in heads] == [0, 2]
    masks = EncoderMasks.none(encoder.anatomy)
    uneven = LayerMasks(vo=torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0]))
    assert survivors(encoder.anatomy, replace(masks, layers=(uneven, *masks.layers[1:]))).layers[0].heads == (
        KeptHead(index=0, qk=(0, 1, 2), vo=(0, 1, 2)),
        KeptHead(index=2, qk=(), vo=(0,)),
    )
    layer = LayerMasks(head=torch.tensor([0.0, 1.0]))
    cut = slice_encoder(encoder, replace(masks, layers=(layer, *masks.layers[1:])))
    assert cut.kept.layers[0].heads == (KeptHead(index=2, qk=(), vo=(0,)),)
    earlier = KeptIndices(
        conv=tuple(tuple(3 * i + 1 for i in kept) for kept in dense.conv),
        layers=tuple(
            replace(
                each,
                heads=tuple(
                    replace(h, qk=tuple(i + 5 for i in h.qk), vo=tuple(2 * i + 7 for i in h.vo))
                    for h in each.heads
                ),
                intermediate=tuple(10 * i + 2 for i in each.intermediate),
            )
            for each in dense.layers
        ),
    )
    other = LayerMasks(head=torch.tensor([1.0, 0.0]), qk=torch.tensor([0.0, 1.0, 1.0]))
    cut_again = slice_encoder(encoder, replace(masks, layers=(other, *masks.layers[1:])))
    assert cut_again.kept.within(earlier).layers[0].heads == (
        KeptHead(index=0, qk=(6, 7), vo=(7, 9, 11, 13)),
    )
    both = cut.kept.within(earlier)
    assert both.layers[0].heads == (KeptHead(index=2, qk=(), vo=(7,)),)
    assert both.layers[0].intermediate == (2,) and both.layers[4].intermediate == (2, 12, 22, 32, 42)
    assert both.conv[0] == (1, 4, 7, 10, 13)


def test_surgery_leaves_the_encoder_alone_and_keeps_its_mode_and_type() -> None:
    encoder = random_encoder(ANATOMY, 0).double().train()
    before = {name: weights.clone() for name, weights in encoder.state_dict().items()}
    masks = EncoderMasks(conv=(None,) * 3, layers=(LAYER, LAYER))
    double = EncoderMasks(
        conv=(CONV.double(), None, None),
        layers=tuple(
            LayerMasks(**{name: mask.double() for name, mask in vars(layer).items()})
            for layer in masks.layers
        ),
    )
    sliced = slice_encoder(encoder, double).encoder
    assert all(torch.equal(weights, before[name]) for name, weights in encoder.state_dict().items())
    assert sliced.training and next(sliced.parameters()).dtype == torch.float64
    assert all(parameter.requires_grad for parameter in sliced.parameters())
    assert not slice_encoder(encoder.eval(), double).encoder.training
