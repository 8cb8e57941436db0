"""Quantisers find the linear maps, and what they put in their place is called."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.utils.flop_counter import FlopCounterMode

import models
from drawn import random_encoder
from slimvox.checkpoint.transformers_config import anatomy_from_config
from slimvox.costs import macs
from slimvox.encoder import SpeechEncoder, record_choices, use_backend
from slimvox.encoder.linear import EmptyLinear
from slimvox.structures.parts import HeadAnatomy, LayerAnatomy, dense_layer
from small_encoders import as_transformers_model, pruned, states, wavlm

PRODUCTS, SPREADING = "products by oneDNN", "spreading of weights"


def emptied() -> SpeechEncoder:
    """Layers without heads, with heads that have no queries, and with a single feed-forward dimension."""
    heads = (HeadAnatomy(index=1, qk=0, vo=3), HeadAnatomy(index=3, qk=0, vo=5))
    odd = LayerAnatomy(attention=True, heads=heads, feed_forward=True, intermediate=1)
    headless = LayerAnatomy(attention=True, heads=(), feed_forward=True, intermediate=0)
    dense = dense_layer(heads=4, head_width=8, intermediate=48)
    return random_encoder(wavlm(layers=(dense, odd, headless)), 0)


@pytest.mark.parametrize("kind", ["encoder", "transformers model"])
@pytest.mark.parametrize("make", [pruned, emptied])
def test_dynamic_quantisation_converts_every_map(make: Any, kind: str) -> None:
    encoder: Any = make()
    if kind != "encoder":
        encoder = as_transformers_model(encoder)
    waveforms = torch.randn(2, 1500)
    maps = {name for name, module in encoder.named_modules() if isinstance(module, nn.Linear)}
    empty = {name for name, module in encoder.named_modules() if isinstance(module, EmptyLinear)}
    quantized = torch.ao.quantization.quantize_dynamic(encoder, {nn.Linear})
    # What torchao looks for instead of the exact type.
    assert all(isinstance(encoder.get_submodule(name), NonDynamicallyQuantizableLinear) for name in empty)
    converted = {
        name
        for name, module in quantized.named_modules()
        if isinstance(module, torch.ao.nn.quantized.dynamic.Linear)
    }
    assert converted == maps - empty and len(converted) > 10
    expected = states(encoder, waveforms)
    for mode in (torch.enable_grad, torch.inference_mode):
        with mode():
            error = float((states(quantized, waveforms) - expected).norm() / expected.norm())
        assert 1e-4 < error < 0.1


class ScaledInt8(Tensor):
    """Weights in int8, each row with a scale, which know one operation: to be multiplied by."""

    codes: Tensor
    scales: Tensor

    @staticmethod
    def __new__(cls, codes: Tensor, scales: Tensor) -> ScaledInt8:
        made: ScaledInt8 = Tensor._make_wrapper_subclass(cls, codes.shape, dtype=scales.dtype)
        made.codes, made.scales = codes, scales
        return made

    @classmethod
    def quantized(cls, weight: Tensor) -> ScaledInt8:
        scales = weight.abs().amax(1, keepdim=True).clamp(min=1e-6) / 127
        return cls((weight / scales).round().to(torch.int8), scales)

    def dequantized(self) -> Tensor:
        return self.codes * self.scales

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is nn.functional.linear:
            x, weight, bias = args
            return func(x, weight.dequantized(), bias)
        return super().__torch_function__(func, types, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.detach.default:
            return cls(args[0].codes, args[0].scales)
        raise NotImplementedError(f"{func} on int8 weights")


@pytest.mark.parametrize("make", [pruned, emptied])
def test_weights_of_another_kind_are_left_to_themselves(make: Any) -> None:
    encoder, waveforms = make(), torch.randn(2, 1500)
    merged = copy.deepcopy(encoder)
    for module, same in zip(encoder.modules(), merged.modules(), strict=True):
        if type(module) is nn.Linear and type(same) is nn.Linear:
            weight = ScaledInt8.quantized(module.weight.detach())
            same.weight = nn.Parameter(weight.dequantized())
            module.weight = nn.Parameter(weight, requires_grad=False)
    with use_backend("reference"):
        expected = states(merged, waveforms)
    torch.testing.assert_close(states(encoder, waveforms), expected, atol=1e-5, rtol=1e-5)
    with torch.inference_mode(), record_choices() as choices:
        torch.testing.assert_close(states(encoder, waveforms), expected, atol=1e-5, rtol=1e-5)
    assert "a tensor is a ScaledInt8" in choices[PRODUCTS]
    assert "" not in choices[SPREADING]


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("layout", models.LAYOUTS)
@pytest.mark.parametrize("family", models.FAMILIES)
def test_a_flop_counter_sees_what_is_computed(family: str, layout: str, gradients: bool) -> None:
    config = models.config(family, layout, **models.fields(family, position_kernel=32))
    anatomy = anatomy_from_config(config.to_dict(), "test", normalize_waveform=False)
    encoder = random_encoder(anatomy, 0)
    with torch.set_grad_enabled(gradients), FlopCounterMode(display=False) as counter:
        encoder(torch.randn(1, 4000))
    assert counter.get_total_flops() / 2 == pytest.approx(macs(anatomy, 0.25), rel=0.005)
