"""The module given to exporters computes the same as the encoder, for any anatomy and any cut of it."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drawn import anatomies, masks_for, random_encoder
from nightly import examples
from slimvox.encoder.front_end import PositionalConvolution
from slimvox.encoder.spectral_convolution import SpectrumCache
from slimvox.exporters.exportable import ExportableModel
from slimvox.exporters.position import PositionForm, exported_positions
from slimvox.pruning.surgery import slice_encoder
from slimvox.structures.anatomy import EncoderAnatomy


@settings(max_examples=examples(40))
@given(data=st.data(), anatomy=anatomies(), seed=st.integers(0, 1000), padded=st.booleans())
def test_same_function(data: st.DataObject, anatomy: EncoderAnatomy, seed: int, padded: bool) -> None:
    encoder = random_encoder(anatomy, seed)
    masks = data.draw(masks_for(anatomy))
    encoder = slice_encoder(encoder, masks).encoder.double()  # norms over few channels magnify rounding
    samples = data.draw(st.integers(anatomy.receptive_field, 900))
    waveforms = torch.randn(3, samples, generator=torch.Generator().manual_seed(seed)).double()
    mask = None
    if padded:
        mask = torch.arange(samples) < torch.tensor(
            [[samples], [max(samples // 2, anatomy.receptive_field)], [0]]
        )
    with torch.no_grad():
        expected = encoder(waveforms, mask)
        exportable = ExportableModel(encoder, layers="all").double()(waveforms, mask)
        plain = ExportableModel(encoder, layers="last", positions="convolution").double()
        last = plain(waveforms, mask)[0]
    states = [*expected.hidden_states]
    if anatomy.pre_norm:
        states.append(expected.last_hidden_state)
    assert len(exportable) == len(states) + padded
    if padded:
        assert torch.equal(exportable[-1], expected.frame_mask)
    for ours, theirs in zip(exportable, states, strict=False):
        scale = theirs.abs().max().clamp(min=1)
        assert (ours - theirs).abs().max() / scale < 1e-4
    scale = expected.last_hidden_state.abs().max().clamp(min=1)
    assert (last - expected.last_hidden_state).abs().max() / scale < 1e-4


@pytest.mark.parametrize("taps", [1, 3, 4, 16, 128])
@pytest.mark.parametrize("frames", [1, 2, 63, 64, 65, 128, 129, 300])
def test_exported_positions_are_the_convolution(taps: int, frames: int) -> None:
    layer = torch.nn.Module()
    layer.__class__ = PositionalConvolution
    torch.manual_seed(frames)
    layer.conv = torch.nn.Conv1d(24, 24, taps, padding=taps // 2, groups=4)
    layer.spectrum, layer.layer_norm = SpectrumCache(), None
    x = torch.randn(2, frames, 24)
    with torch.no_grad():
        expected = layer(x)
        for form in get_args(PositionForm):
            found = exported_positions(layer, form)(x)
            torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)
