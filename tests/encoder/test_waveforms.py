"""One rule for the type of waveforms, in training and in inference, as an encoder and as a `transformers` model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from drawn import random_encoder
from slimvox.encoder.waveforms import normalize_waveforms
from small_encoders import as_transformers_model, states, wavlm

MODES = [torch.enable_grad, torch.no_grad, torch.inference_mode]


@pytest.fixture(scope="module", params=["encoder", "transformers model"])
def model(request: pytest.FixtureRequest) -> Any:
    """One that normalizes waveforms."""
    encoder = random_encoder(replace(wavlm(), normalize_waveform=True), 0)
    return encoder if request.param == "encoder" else as_transformers_model(encoder)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_floating_point_is_converted_to_the_type_of_the_weights(
    model: Any, mode: Any, dtype: torch.dtype
) -> None:
    waveforms = torch.randn(2, 1200).to(dtype)
    with mode():
        found, expected = states(model, waveforms), states(model, waveforms.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("normalize", [False, True])
def test_weights_of_other_types_take_any_floating_point(
    mode: Any, dtype: torch.dtype, normalize: bool
) -> None:
    encoder = random_encoder(replace(wavlm(), normalize_waveform=normalize), 0).to(dtype)
    waveforms = torch.randn(2, 1200)
    with mode():
        found, expected = states(encoder, waveforms), states(encoder, waveforms.double())
    assert found.dtype == dtype
    bound = {torch.float64: 1e-5, torch.bfloat16: 0.1}[dtype]
    torch.testing.assert_close(found, expected, atol=bound, rtol=bound)


REFUSED = {
    torch.int16: "divide samples of 16 bits by 32768",
    torch.int32: "divide samples of 32 bits by 2147483648",
    torch.int64: "divide integer samples by their full scale",
    torch.uint8: "divide unsigned samples of 8 bits by 128 and subtract 1",
    torch.bool: "samples are numbers",
    torch.complex64: "take the real part",
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", REFUSED)
def test_other_types_are_refused_with_the_cure(model: Any, mode: Any, dtype: torch.dtype) -> None:
    waveforms = (1000 * torch.rand(2, 1200)).to(dtype)
    message = f"must be floating point with full scale at 1, but is {dtype} instead; .*{REFUSED[dtype]}"
    with mode(), pytest.raises(ValueError, match=message):
        model(waveforms)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_no_batch_of_clips_is_refused(model: Any, mode: Any) -> None:
    with mode():
        with pytest.raises(ValueError, match=r"must be a torch.Tensor, but is of type ndarray"):
            model(np.zeros((1, 1200), np.float32))
        with pytest.raises(ValueError, match="must hold at least one clip"):
            model(torch.zeros(0, 1200))
        with pytest.raises(ValueError, match=r"must be \(batch, samples\)"):
            model(torch.zeros(1200))


def test_what_is_no_mask_is_refused(model: Any) -> None:
    with pytest.raises(ValueError, match=r"`attention_mask` must be a torch.Tensor, but is of type list"):
        model(torch.zeros(1, 1200), [[1] * 1200])
    with pytest.raises(ValueError, match=r"`attention_mask` must have the shape of the waveforms"):
        model(torch.zeros(1, 1200), torch.ones(1, 1199))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_waveforms_are_normalized_in_float32_at_least(dtype: torch.dtype) -> None:
    waveforms = torch.randn(2, 1200, dtype=torch.double).to(dtype) + 3
    normalized = normalize_waveforms(waveforms)
    assert normalized.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    exact = waveforms.double()
    exact = (exact - exact.mean(-1, keepdim=True)) / (exact.var(-1, correction=0, keepdim=True) + 1e-7).sqrt()
    bound = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(normalized.double(), exact, atol=bound, rtol=bound)
