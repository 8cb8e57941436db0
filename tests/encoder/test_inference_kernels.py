"""The ways that only inference on a CPU takes: the same function, whatever happens to the weights."""

from __future__ import annotations

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from slimvox.encoder.linear import PackedLinear
from slimvox.encoder.products import linear
from slimvox.encoder.spectral_convolution import _SPECTRA, spectral_convolution, suits_spectral


@settings(max_examples=40)
@given(
    batch=st.integers(1, 20),
    frames=st.integers(1, 300),
    taps=st.sampled_from([32, 33, 48, 64]),
    groups=st.sampled_from([1, 2, 4]),
)
def test_the_spectral_convolution_is_the_convolution(batch: int, frames: int, taps: int, groups: int) -> None:
    torch.manual_seed(frames)
    convolution = nn.Conv1d(8, 8, taps, padding=taps // 2, groups=groups)
    assert suits_spectral(convolution)
    x = torch.randn(batch, frames, 8)
    with torch.no_grad():
        expected = convolution(x.transpose(1, 2))[..., :frames].transpose(1, 2)
        torch.testing.assert_close(spectral_convolution(convolution, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("change", ["in place", "through data", "replaced", "loaded"])
def test_new_weights_are_noticed(change: str) -> None:
    convolution = nn.Conv1d(8, 8, 32, padding=16, groups=2)
    x = torch.randn(1, 50, 8)
    with torch.no_grad():
        before = spectral_convolution(convolution, x)
        if change == "in place":
            convolution.weight.mul_(2)
        elif change == "through data":
            convolution.weight.data.mul_(2)
        elif change == "replaced":
            convolution.weight = nn.Parameter(2 * convolution.weight)
        else:
            state = {name: 2 * value for name, value in convolution.state_dict().items()}
            convolution.load_state_dict(state)
        after = spectral_convolution(convolution, x)
        expected = convolution(x.transpose(1, 2))[..., :50].transpose(1, 2)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, expected, rtol=1e-5, atol=1e-5)


def test_spectra_do_not_outlive_or_burden_their_convolutions() -> None:
    convolution = nn.Conv1d(8, 8, 32, padding=16)
    before = len(_SPECTRA)
    file = io.BytesIO()
    torch.save(convolution, file)
    size = file.tell()
    with torch.no_grad():
        spectral_convolution(convolution, torch.randn(1, 9, 8))
    assert len(_SPECTRA) == before + 1
    file = io.BytesIO()
    torch.save(copy.deepcopy(convolution), file)
    assert file.tell() == size and len(_SPECTRA) == before + 1
    del convolution
    assert len(_SPECTRA) == before


@pytest.mark.parametrize("sizes", [(5, 7), (64, 48), (0, 6), (6, 0)])
@pytest.mark.parametrize("shape", [(), (1,), (3, 17)])
def test_linear_maps_of_any_size_agree(sizes: tuple[int, int], shape: tuple[int, ...]) -> None:
    layer = PackedLinear(*sizes)
    x = torch.randn(*shape, sizes[0])
    with torch.no_grad():
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias), rtol=1e-5, atol=1e-5)


def test_strided_inputs_and_other_precisions_agree() -> None:
    weight, bias = torch.randn(12, 8), torch.randn(12)
    x = torch.randn(8, 30, 2)[..., 0].T
    with torch.no_grad():
        torch.testing.assert_close(linear(x, weight, bias), F.linear(x, weight, bias), rtol=1e-5, atol=1e-5)
        exact = (x.double(), weight.double(), bias.double())
        assert torch.equal(linear(*exact), F.linear(*exact))
        with torch.autocast("cpu", torch.bfloat16):
            assert linear(x, weight, bias).dtype == torch.bfloat16


def test_gradients_take_the_usual_way() -> None:
    layer = PackedLinear(8, 4)
    layer(torch.randn(3, 8)).sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.parametrize("shape", [(1, 1, 5), (2, 63, 5), (1, 64, 5), (3, 65, 5), (130, 5)])
@pytest.mark.parametrize("gelu", [False, True])
def test_padded_rows_leave_no_trace(shape: tuple[int, ...], gelu: bool) -> None:
    x, weight, bias = torch.randn(shape), torch.randn(7, 5), torch.randn(7)
    with torch.inference_mode():
        product = linear(x, weight, bias, gelu=gelu)
    expected = F.linear(x, weight, bias)
    expected = F.gelu(expected) if gelu else expected
    assert product.shape == (*shape[:-1], 7)
    torch.testing.assert_close(product, expected, rtol=1e-5, atol=1e-5)
