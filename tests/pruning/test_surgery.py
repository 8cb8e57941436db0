"""The law of surgery, over drawn anatomies and masks."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drawn import anatomies, masks_for, random_encoder
from nightly import examples
from slimvox.encoder import SpeechEncoder
from slimvox.pruning.masks import Masks, masked_forward
from slimvox.pruning.surgery import slice_encoder, survivors
from slimvox.structures import Address
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.structures.kept_indices import KeptIndices

TOLERANCE = 1e-5
EXACT = 1e-9
"""In float64, where only a wrong cut shows."""
FEW_CHANNELS = 4
"""A layer norm over two or three channels multiplies rounding by up to 1 / sqrt(eps) = 316 when they happen to be
equal; there the law is checked in float64 only."""


def difference(
    encoder: SpeechEncoder,
    masks: Masks,
    smaller: SpeechEncoder,
    *,
    padded: bool,
    dtype: torch.dtype = torch.float32,
) -> float:
    """Largest difference over all hidden states, relative to their size where that is above 1."""
    waveforms = torch.randn(2, 600, generator=torch.Generator().manual_seed(3)).to(dtype)
    mask = None
    if padded:
        mask = torch.arange(600) < torch.tensor([[600], [350]])
        waveforms = waveforms * mask
    with torch.no_grad():
        masked = masked_forward(copy.deepcopy(encoder).to(dtype), masks, waveforms, mask)
        sliced = copy.deepcopy(smaller).to(dtype)(waveforms, mask)
    pairs = zip(masked.hidden_states, sliced.hidden_states, strict=True)
    return max(float((a - b).abs().max() / a.abs().max().clamp(min=1)) for a, b in pairs)


def well_conditioned(anatomy: EncoderAnatomy) -> bool:
    """True if no layer norm runs over only a few channels (over a single one it gives exactly its bias)."""
    if anatomy.width < FEW_CHANNELS:
        return False
    normed = anatomy.convolutions if anatomy.conv_norm == "layer" else anatomy.convolutions[-1:]
    return not any(1 < convolution.channels < FEW_CHANNELS for convolution in normed)


@settings(max_examples=examples(150))
@given(data=st.data(), anatomy=anatomies(), seed=st.integers(0, 1000), padded=st.booleans())
def test_masked_and_sliced_agree(
    data: st.DataObject, anatomy: EncoderAnatomy, seed: int, padded: bool
) -> None:
    check_law(data, anatomy, seed, padded)


def check_law(data: st.DataObject, anatomy: EncoderAnatomy, seed: int, padded: bool) -> None:
    """Prune, compare, count; then prune the pruned encoder again and compare once more."""
    encoder = random_encoder(anatomy, seed)
    kept = KeptIndices.everything(anatomy)
    for _ in range(2):
        masks = data.draw(masks_for(encoder.anatomy))
        result = slice_encoder(encoder, masks)
        assert (
            difference(
                encoder, exact(masks), sliced_exactly(encoder, masks), padded=padded, dtype=torch.float64
            )
            < EXACT
        )
        if well_conditioned(result.encoder.anatomy):
            gap = difference(encoder, masks, result.encoder, padded=padded)
            assert gap < TOLERANCE
        smaller = result.encoder
        assert sum(p.numel() for p in smaller.parameters()) == smaller.parameter_count
        assert result.kept.anatomy(encoder.anatomy) == smaller.anatomy
        kept = result.kept.within(kept)
        assert kept.anatomy(anatomy) == smaller.anatomy
        encoder = smaller
    assert encoder.dense_anatomy == anatomy


def sliced_exactly(encoder: SpeechEncoder, masks: Masks) -> SpeechEncoder:
    """Surgery in float64, so that folding the masks rounds nothing."""
    return slice_encoder(copy.deepcopy(encoder).double(), exact(masks)).encoder


def exact(masks: Masks) -> Masks:
    """The same masks in float64."""
    return {address: mask.double() for address, mask in masks.items()}


def test_kept_indices_point_at_the_dense_weights() -> None:
    anatomy = replace(random_anatomy(), projection_norm=True)
    encoder = random_encoder(anatomy, 0)
    masks = {
        Address("head", 0): torch.tensor([0.0, 1.0]),
        Address("qk", 0): torch.tensor([1.0, 0, 1, 0, 0, 1, 1, 0]),
        Address("intermediate", 0): torch.eye(6)[4],
        Address("position", 0): torch.tensor([0.0, 1, 0, 1]),
    }
    result = slice_encoder(encoder, masks)
    kept = result.kept
    assert (kept["head", 0], kept["qk", 0], kept["vo", 0]) == ((1,), (5, 6), (4, 5, 6, 7))
    assert [head.index for head in result.encoder.anatomy.layers[0].heads] == [1]
    dense, small = encoder.state_dict(), result.encoder.state_dict()
    name = "layers.0.attention.k_proj.weight"
    assert torch.equal(small[name], dense[name][[5, 6]])
    assert kept["intermediate", 0] == (4,)
    taps = "pos_conv_embed.conv.weight"
    assert torch.equal(small[taps], dense[taps][:, :, [1, 3]])
    assert KeptIndices.from_dict(kept.to_dict(), anatomy) == kept


def test_kept_indices_of_the_first_format_are_read() -> None:
    anatomy = random_anatomy()
    data = {
        "conv": [[0, 1, 2, 3], [1], [0, 3]],
        "layers": [
            {
                "attention": True,
                "heads": [{"index": 1, "qk": [1, 2], "vo": [0, 3]}],
                "feed_forward": True,
                "intermediate": [4],
            }
        ],
    }
    kept = KeptIndices.from_dict(data, anatomy)
    assert (kept["head", 0], kept["qk", 0], kept["vo", 0]) == ((1,), (5, 6), (4, 7))
    assert (kept["conv", 1], kept["intermediate", 0], kept["position", 0]) == ((1,), (4,), (0, 1, 2, 3))
    assert KeptIndices.from_dict(kept.to_dict(), anatomy) == kept
    for broken in ({}, {**data, "conv": [[9], [1], [0]]}, {"format": 7}, {"format": 2, "qk": {"5": [0]}}):
        with pytest.raises(ValueError, match=r"is missing|must be among|format is 7|of another encoder"):
            KeptIndices.from_dict(broken, anatomy)


def test_a_convolution_with_no_channel_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 of the front-end channels at index 1 must be kept"):
        survivors(random_anatomy(), {Address("conv", 1): torch.zeros(4)})


def test_position_bias_survives_the_first_layer() -> None:
    """Without layer 0's attention, the other layers still have WavLM's bias."""
    anatomy = replace(random_anatomy(), family="wavlm", position_buckets=16, position_max_distance=24)
    anatomy = replace(anatomy, layers=anatomy.layers * 2)
    encoder = random_encoder(anatomy, 1)
    masks = {Address("attention", 0): torch.tensor([0.0])}
    result = slice_encoder(encoder, masks)
    assert result.encoder.rel_attn_embed is not None
    assert difference(encoder, masks, result.encoder, padded=False) < TOLERANCE


def random_anatomy() -> EncoderAnatomy:
    """One layer of two heads of four dimensions, six feed-forward dimensions."""
    from slimvox.structures.parts import ConvAnatomy, dense_layer

    return EncoderAnatomy(
        family="hubert",
        convolutions=tuple(ConvAnatomy(channels=4, kernel=k, stride=s) for k, s in ((10, 5), (3, 2), (2, 2))),
        conv_norm="group",
        conv_bias=False,
        projection_norm=True,
        width=8,
        position_kernel=4,
        position_groups=2,
        attention_heads=2,
        layers=(dense_layer(heads=2, head_width=4, intermediate=6),),
        pre_norm=False,
        layer_norm_eps=1e-5,
    )
