"""The front end in stretches computes what the front end in one piece does."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nightly import examples
from slimvox.encoder import linear, tiled_front_end
from slimvox.encoder.backend import inference_obstacle, record_choices
from slimvox.encoder.front_end import FeatureExtractor
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.structures.parts import ConvAnatomy, dense_layer


def extractor(
    sizes: list[tuple[int, int, int]], norm: Literal["group", "layer"], bias: bool
) -> FeatureExtractor:
    anatomy = EncoderAnatomy(
        family="wav2vec2",
        convolutions=tuple(ConvAnatomy(channels=c, kernel=k, stride=s) for c, k, s in sizes),
        conv_norm=norm,
        conv_bias=bias,
        projection_norm=True,
        width=8,
        position_kernel=4,
        position_groups=2,
        attention_heads=2,
        layers=(dense_layer(heads=2, head_width=4, intermediate=8),),
        pre_norm=False,
        layer_norm_eps=1e-5,
    )
    module = FeatureExtractor(anatomy).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module


@settings(max_examples=examples(60), deadline=None)
@given(data=st.data())
def test_stretches_make_no_difference(data: st.DataObject) -> None:
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    strides = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    # A layer norm over one channel divides rounding by next to nothing.
    sizes = [(data.draw(st.integers(3, 6)), data.draw(st.integers(s, 2 * s + 2)), s) for s in strides]
    module = extractor(sizes, data.draw(st.sampled_from(["group", "layer"])), data.draw(st.booleans()))
    field, hop = 1, 1
    for _, kernel, stride in sizes:
        field, hop = field + (kernel - 1) * hop, hop * stride
    # The group norm of torch refuses a single position.
    samples = field + data.draw(st.integers(strides[0], 40 * hop))
    waveforms = torch.randn(data.draw(st.integers(1, 3)), samples, dtype=torch.double) + 0.5
    whole = module(waveforms).detach()
    bytes_before = tiled_front_end.TILE_BYTES
    tiled_front_end.TILE_BYTES = data.draw(st.sampled_from([1, 2000, 1 << 20]))
    try:
        with torch.no_grad():
            stretches = module(waveforms)
    finally:
        tiled_front_end.TILE_BYTES = bytes_before
    assert stretches.shape == whole.shape
    torch.testing.assert_close(stretches, whole, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_autocast_gives_the_precision_asked_for(norm: Literal["group", "layer"]) -> None:
    torch.manual_seed(0)
    module = extractor([(16, 10, 5), (16, 3, 2), (16, 2, 2)], norm, bias=True).float()
    waveforms = torch.randn(2, 4000)
    with torch.no_grad():
        exact = module(waveforms)
        with torch.autocast("cpu", torch.bfloat16):
            half = module(waveforms)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, atol=0.05 * float(exact.abs().max()), rtol=0)


@pytest.mark.parametrize("mkl", [True, False])
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_products_of_either_library(
    norm: Literal["group", "layer"], mkl: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "_mkl_is_faster", lambda: mkl)
    monkeypatch.setattr(tiled_front_end, "TILE_BYTES", 20_000)
    torch.manual_seed(0)
    sizes = [(16, 10, 5), (11, 3, 2), (13, 4, 2), (16, 5, 2), (8, 2, 2), (8, 1, 2)]
    module = extractor(sizes, norm, bias=True).float()
    waveforms = torch.randn(2, 8000)
    expected = module(waveforms).detach()
    with torch.no_grad(), record_choices() as choices:
        features = module(waveforms)
    torch.testing.assert_close(features, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-4)
    if linear._onednn_is_there():
        assert choices[linear.WAY] == ({"MKL is faster on this processor"} if mkl else {""})


def test_a_clip_shorter_than_a_frame_has_no_features() -> None:
    module = extractor([(4, 10, 5), (4, 3, 2), (5, 2, 2)], "group", bias=False)
    with torch.no_grad():
        for samples in (4, 12, 24):
            assert module(torch.randn(2, samples, dtype=torch.double)).shape == (2, 0, 5)


def test_only_inference_goes_in_stretches() -> None:
    x = torch.zeros(1)
    assert inference_obstacle(x) == "gradients are enabled"
    with torch.no_grad():
        assert inference_obstacle(x) is None
        assert inference_obstacle(torch.zeros(1, device="meta")) == "the input is on meta"
