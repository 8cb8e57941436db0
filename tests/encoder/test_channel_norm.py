"""The norm over the channels that are kept: the law of surgery in half precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from drawn import random_encoder
from slimvox.encoder.convolution import ChannelNorm
from slimvox.pruning.masks import masked_forward
from slimvox.pruning.surgery import slice_encoder
from slimvox.structures import Address
from small_encoders import wavlm


def error(found: Tensor, exact: Tensor) -> float:
    difference = (found.double() - exact.double()).detach()
    return float(difference.norm() / exact.detach().double().norm())


@pytest.mark.parametrize("channels", [509, 512])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_masked_norm_rounds_as_the_norm_does(channels: int, autocast: bool, dtype: torch.dtype) -> None:
    """Whatever the precision of what comes in, nothing but the result is rounded to it."""
    norm = ChannelNorm(channels)
    with torch.no_grad():
        norm.weight.add_(0.2 * torch.randn(channels))
        norm.bias.add_(0.2 * torch.randn(channels))
    kept = (torch.rand(channels) < 0.7).to(torch.float32)
    rows = kept.bool()
    sliced = ChannelNorm(int(kept.sum()))
    sliced.load_state_dict({"weight": norm.weight.detach()[rows], "bias": norm.bias.detach()[rows]})
    x = (3 * torch.randn(2, 50, channels) + 2).to(dtype)
    if not autocast:
        norm, sliced = norm.to(dtype), sliced.to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        masked, plain = norm(x, kept)[..., rows], sliced(x[..., rows])
        everything, same = norm(x, torch.ones(channels)), norm(x)
    assert masked.dtype == plain.dtype == same.dtype == dtype
    exact = sliced.double()(x[..., rows].double())
    # No further from the exact values, and almost nowhere another number.
    assert error(masked, exact) < 1.01 * error(plain, exact) + 1e-6
    assert error(masked, plain) < 0.1 * torch.finfo(dtype).eps + 1e-6
    assert error(everything, same) < 0.1 * torch.finfo(dtype).eps + 1e-6


def test_masked_and_sliced_encoders_agree_under_autocast() -> None:
    """They are no further apart than half precision takes each of them from the exact states."""
    encoder = random_encoder(wavlm(conv_norm="layer", conv_bias=True), 0)
    masks = {
        Address("conv", index): (torch.rand(each.channels) < 0.7).float()
        for index, each in enumerate(encoder.anatomy.convolutions)
    }
    assert all(4 < mask.sum() < len(mask) for mask in masks.values())
    sliced = slice_encoder(encoder, masks).encoder
    waveforms = torch.randn(2, 1500)
    for mode in (torch.enable_grad, torch.no_grad):
        with mode():
            exact = sliced(waveforms).last_hidden_state
            with torch.autocast("cpu", torch.bfloat16):
                masked = masked_forward(encoder, masks, waveforms).last_hidden_state
                cut = sliced(waveforms).last_hidden_state
        assert masked.dtype == cut.dtype
        rounding = error(cut, exact)
        assert error(masked, exact) < 1.25 * rounding
        assert error(masked, cut) < 1.25 * rounding < 0.01
