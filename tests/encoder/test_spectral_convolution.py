"""The convolution by Fourier transform is the convolution, whatever happens to the weights."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nightly import examples
from slimvox.encoder.front_end import PositionalConvolution, multiplied_wrongly
from slimvox.encoder.spectral_convolution import SpectrumCache, spectral_convolution, spectral_obstacle


@settings(max_examples=examples(40))
@given(
    batch=st.integers(1, 20),
    frames=st.integers(1, 300),
    taps=st.sampled_from([32, 33, 48, 64, 128]),
    groups=st.sampled_from([1, 2, 4]),
)
def test_the_spectral_convolution_is_the_convolution(batch: int, frames: int, taps: int, groups: int) -> None:
    torch.manual_seed(frames)
    convolution = nn.Conv1d(8, 8, taps, padding=taps // 2, groups=groups)
    x = torch.randn(batch, frames, 8)
    assert spectral_obstacle(convolution, x) is None
    with torch.no_grad():
        expected = convolution(x.transpose(1, 2))[..., :frames].transpose(1, 2)
        found = spectral_convolution(convolution, x, SpectrumCache())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_in_half_precision_are_transformed_in_float32(dtype: torch.dtype) -> None:
    convolution, cache = nn.Conv1d(130, 130, 32, padding=16).to(dtype), SpectrumCache()
    exact = copy.deepcopy(convolution).float()
    x = torch.randn(1, 50, 130).to(dtype)
    with torch.no_grad():
        for weight in ((0, 0, 0), (129, 129, 31)):
            # Little, as the sums of whole rows are too large to tell in half precision.
            convolution.weight.data[weight] *= 1.0625
            exact.weight.data.copy_(convolution.weight)
            found = spectral_convolution(convolution, x, cache)
            expected = exact(x.float().transpose(1, 2))[..., :50].transpose(1, 2)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def _permuted(convolution: nn.Conv1d) -> None:
    """Neither the memory, nor the version, nor the sum of all weights tells."""
    convolution.weight.data.copy_(convolution.weight.data.flip(0).clone())


def _swapped(convolution: nn.Conv1d) -> None:
    weight = convolution.weight.data
    weight[0, 0, 15], weight[0, 0, 16] = weight[0, 0, 16].clone(), weight[0, 0, 15].clone()


def _replaced(convolution: nn.Conv1d) -> None:
    convolution.weight = nn.Parameter(2 * convolution.weight.detach())


CHANGES: dict[str, Callable[[nn.Conv1d], object]] = {
    "in place": lambda convolution: convolution.weight.mul_(2),
    "through data": lambda convolution: convolution.weight.data.mul_(2),
    "permuted through data": _permuted,
    "two taps swapped through data": _swapped,
    "through numpy": lambda convolution: convolution.weight.numpy().__setitem__((3, 1, 16), 1.5),
    "replaced": _replaced,
    "loaded": lambda convolution: convolution.load_state_dict(
        {name: 2 * value for name, value in convolution.state_dict().items()}
    ),
    "to float64": lambda convolution: convolution.double(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_new_weights_are_noticed(change: str) -> None:
    convolution = nn.Conv1d(8, 8, 32, padding=16, groups=2)
    cache, clips = SpectrumCache(), [torch.randn(1, frames, 8) for frames in (10, 50)]
    with torch.no_grad():
        before = [spectral_convolution(convolution, x, cache) for x in clips]
        CHANGES[change](convolution)
        for x, old in zip(clips, before, strict=True):
            x = x.to(convolution.weight.dtype)
            after = spectral_convolution(convolution, x, cache)
            expected = convolution(x.transpose(1, 2))[:, :, : x.shape[1]].transpose(1, 2)
            assert change == "to float64" or not torch.allclose(old, after)
            torch.testing.assert_close(after, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [1.0, float("nan")])
def test_the_same_weights_are_transformed_once(value: float) -> None:
    convolution, cache = nn.Conv1d(8, 8, 32, padding=16), SpectrumCache()
    with torch.no_grad():
        convolution.weight[0, 0, 0] = value
    with torch.inference_mode():
        first = cache.spectrum(convolution, 128)
        assert cache.spectrum(convolution, 128) is first
    with torch.no_grad():
        assert cache.spectrum(convolution, 128) is first


def test_spectra_are_no_part_of_copies_and_files() -> None:
    convolution, cache = nn.Conv1d(8, 8, 32, padding=16), SpectrumCache()
    module = nn.Module()
    module.cache = cache
    file = io.BytesIO()
    torch.save(module, file)
    size = file.tell()
    with torch.no_grad():
        spectrum = cache.spectrum(convolution, 128)
    file = io.BytesIO()
    torch.save(module, file)
    assert file.tell() == size and not module.state_dict()
    for copied in (copy.copy(cache), copy.deepcopy(cache)):
        with torch.no_grad():
            assert copied.spectrum(convolution, 128) is not spectrum


@settings(max_examples=examples(40))
@given(
    taps=st.sampled_from([3, 4, 8, 16, 31, 32, 128]),
    channels=st.sampled_from([1, 2, 4, 7, 8, 12, 14, 16]),
    autocast=st.booleans(),
    hooked=st.booleans(),
)
def test_the_positional_convolution_in_half_precision(
    taps: int, channels: int, autocast: bool, hooked: bool
) -> None:
    """A kernel of torch's own is wrong for some of these shapes on processors with AMX."""
    torch.manual_seed(taps)
    module = object.__new__(PositionalConvolution)
    nn.Module.__init__(module)
    module.conv = nn.Conv1d(4 * channels, 4 * channels, taps, padding=taps // 2, groups=4)
    module.spectrum, module.layer_norm = SpectrumCache(), None
    x = torch.randn(2, 40, 4 * channels)
    expected = module(x)
    if hooked and autocast:
        module.conv.register_forward_hook(lambda *_: None)
    gradients = []
    for half in (False, True):
        module.zero_grad()
        if not half or autocast:
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                found = module(x)
        else:
            found = module.bfloat16()(x.bfloat16())
        found.float().square().sum().backward()
        assert module.conv.weight.grad is not None
        gradients.append(module.conv.weight.grad.float())
    scale = float(expected.detach().abs().max())
    torch.testing.assert_close(found.float(), expected, atol=0.02 * scale, rtol=0)
    assert float((gradients[1] - gradients[0]).norm() / gradients[0].norm()) < 0.02
    assert multiplied_wrongly(module.conv, x.bfloat16()) == (channels < 16 and taps % 2 == 0)
