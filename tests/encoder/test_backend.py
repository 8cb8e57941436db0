"""Fast ways compute what the reference computes, and are not taken where something else has to be called."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import models
from drawn import anatomies, masks_for, random_encoder
from nightly import examples
from slimvox.encoder import SpeechEncoder, attention, record_choices, use_backend
from slimvox.encoder.attention import IN_PARTS, ONE_PRODUCT
from slimvox.encoder.position_bias import BY_DISTANCE, bias_of_pairs
from slimvox.pruning.surgery import slice_encoder
from slimvox.structures.anatomy import EncoderAnatomy
from small_encoders import as_transformers_model, pruned, states, wavlm

TILES = "front end in tiles"
PRODUCTS = "products by oneDNN"
FOURIER = "positional convolution by Fourier transform"
SPREADING = "spreading of weights"
INFERENCE = (TILES, PRODUCTS, FOURIER, BY_DISTANCE, ONE_PRODUCT, IN_PARTS)
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x.clone(),
    "columns": lambda x: x.T.contiguous().T,
    "channel of a stereo recording": lambda x: torch.stack([x, torch.randn_like(x)], -1)[..., 0],
    "decimated": lambda x: x.repeat_interleave(3, -1)[:, ::3],
    "part of a longer one": lambda x: torch.cat([torch.randn(len(x), 7).to(x), x, x], -1)[
        :, 7 : 7 + x.shape[1]
    ],
    "every other clip": lambda x: torch.cat([x[:, None], x[:, None] + 1], 1)[:, 0],
    "one clip expanded": lambda x: x[:1].expand(3, -1),
    "overlapping windows": lambda x: x[0].unfold(0, x.shape[1] - 2, 1),
    "negative": lambda x: torch.complex(torch.zeros_like(x), -x).conj().imag,
}
"""Waveforms as they may lie in memory, made from contiguous ones."""


@pytest.mark.parametrize("kind", ["encoder", "transformers model"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_in_memory_gives_the_same(layout: str, kind: str) -> None:
    encoder: Any = pruned()
    if kind != "encoder":
        encoder = as_transformers_model(encoder)
    waveforms = LAYOUTS[layout](torch.randn(2, 1500))
    with use_backend("reference"):
        expected = states(encoder, waveforms.detach().clone(memory_format=torch.contiguous_format))
    torch.testing.assert_close(states(encoder, waveforms), expected, atol=1e-5, rtol=1e-5)
    with torch.inference_mode(), record_choices() as choices:
        torch.testing.assert_close(states(encoder, waveforms), expected, atol=1e-5, rtol=1e-5)
    assert choices[TILES] == {""}


@settings(max_examples=examples(60))
@given(data=st.data(), anatomy=anatomies(models.FAMILIES), seed=st.integers(0, 1000))
def test_drawn_encoders_and_inputs_agree_with_the_reference(
    data: st.DataObject, anatomy: EncoderAnatomy, seed: int
) -> None:
    taps = data.draw(st.sampled_from([anatomy.position_kernel, 32, 33]))
    encoder = random_encoder(replace(anatomy, position_kernel=taps), seed).double()
    if data.draw(st.booleans()):
        encoder = slice_encoder(encoder, data.draw(masks_for(encoder.anatomy))).encoder.double().eval()
    layout = data.draw(st.sampled_from(list(LAYOUTS)))
    batch, samples = data.draw(st.integers(1, 3)), data.draw(st.integers(60, 900))
    waveforms = LAYOUTS[layout](torch.randn(batch, samples, dtype=torch.double))
    mask = None
    if data.draw(st.booleans()):
        lengths = torch.tensor(
            [data.draw(st.integers(anatomy.receptive_field, waveforms.shape[1])) for _ in waveforms]
        )
        mask = torch.arange(waveforms.shape[1]) < lengths[:, None]
    with use_backend("reference"), record_choices() as choices:
        expected = states(encoder, waveforms.clone(memory_format=torch.contiguous_format), mask)
    assert all("" not in reasons for reasons in choices.values())
    ways = [torch.enable_grad, torch.no_grad, torch.inference_mode]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "PART_NUMBERS", data.draw(st.sampled_from([1, 150, 2000, 1 << 20])))
        patch.setattr(attention, "FEWEST_ROWS", data.draw(st.sampled_from([1, 256])))
        for way in ways:
            with way(), record_choices() as choices:
                found = states(encoder, waveforms, mask)
            torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-8)
    convolutions = [each for each in encoder.pos_conv_embed.modules() if isinstance(each, nn.Conv1d)]
    enough = all(convolution.kernel_size[0] >= 32 for convolution in convolutions)
    assert choices[TILES] == {""} and (choices[FOURIER] == {""}) == enough


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_precisions_agree_with_the_reference(norm: str, dtype: torch.dtype) -> None:
    """Neither way is further from the exact states than the other but by the rounding of its own sums."""
    encoder, waveforms = pruned(conv_norm=norm), torch.randn(2, 1500)
    with use_backend("reference"):
        exact = states(copy.deepcopy(encoder).double(), waveforms)
    errors = {}
    for backend in ("auto", "reference"):
        with use_backend(backend), torch.inference_mode():  # type: ignore[arg-type]
            found = states(copy.deepcopy(encoder).to(dtype), waveforms)
        assert found.dtype == dtype
        errors[backend] = float((found.double() - exact).norm() / exact.norm())
    bound = 40 * torch.finfo(dtype).eps
    assert errors["auto"] < bound and errors["reference"] < bound, errors
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        half = states(encoder, waveforms)
    assert float((half.double() - exact).norm() / exact.norm()) < 40 * torch.finfo(torch.bfloat16).eps


def test_inference_takes_every_fast_way_and_says_so() -> None:
    with torch.inference_mode(), record_choices() as choices:
        pruned()(torch.randn(1, 1500))
    assert choices == {way: {""} for way in INFERENCE}
    with record_choices() as choices:
        pruned()(torch.randn(1, 1500))
    assert {way for way, reasons in choices.items() if reasons == {""}} == {SPREADING}


def test_the_switch_is_the_threads_own_and_is_set_back() -> None:
    encoder, waveforms = pruned(), torch.randn(1, 900)

    def taken() -> set[str]:
        with torch.inference_mode(), record_choices() as choices:
            encoder(waveforms)
        return {way for way, reasons in choices.items() if "" in reasons}

    def fails_within_the_reference() -> None:
        with use_backend("reference"):
            assert not taken()
            with use_backend("auto"):
                assert taken() == everything
            assert not taken()
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(taken).result() == everything
            raise ZeroDivisionError

    everything = taken()
    assert everything == set(INFERENCE)
    with pytest.raises(ZeroDivisionError):
        fails_within_the_reference()
    assert taken() == everything
    with pytest.raises(ValueError, match="`backend` must be one of auto, reference, but is 'fast' instead"):
        use_backend("fast").__enter__()  # type: ignore[arg-type]


class Observer(TorchDispatchMode):
    """Notes the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def test_a_dispatch_mode_sees_the_usual_operators() -> None:
    encoder, waveforms = pruned(), torch.randn(1, 900)
    with torch.no_grad(), record_choices() as choices, Observer() as observer:
        encoder(waveforms)
    assert sum("convolution" in name for name in observer.seen) == 4
    assert not any("mkldnn" in name or "fft" in name for name in observer.seen)
    assert all(reasons == {"a dispatch mode is active"} for way, reasons in choices.items() if way != TILES)


class Doubler(TorchFunctionMode):
    """Doubles what convolutions give."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        y = func(*args, **(kwargs or {}))
        return 2 * y if func is torch.conv1d else y


def test_a_function_mode_has_its_effect() -> None:
    encoder, waveforms = pruned(), torch.randn(1, 900)
    with Doubler():
        expected = states(encoder, waveforms)
        with torch.no_grad():
            torch.testing.assert_close(states(encoder, waveforms), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(states(encoder, waveforms), expected, atol=1e-2)
    with torch.device("cpu"), torch.no_grad(), record_choices() as choices:
        encoder(waveforms)
    assert choices[TILES] == {""}


def test_transforms_of_torch_func_and_forward_mode_agree() -> None:
    encoder, waveforms = pruned(), torch.randn(3, 900)

    def last(x: Tensor) -> Tensor:
        out: Tensor = encoder(x).last_hidden_state
        return out

    direction = torch.randn_like(waveforms)
    _, expected = torch.func.jvp(last, (waveforms,), (direction,))
    with torch.no_grad():
        batched = torch.func.vmap(lambda x: last(x[None])[0])(waveforms)
        torch.testing.assert_close(batched, last(waveforms), atol=1e-5, rtol=1e-5)
        with torch.autograd.forward_ad.dual_level():
            dual = last(torch.autograd.forward_ad.make_dual(waveforms, direction))
            tangent = torch.autograd.forward_ad.unpack_dual(dual).tangent
    assert float(expected.detach().norm()) > 1
    torch.testing.assert_close(tangent, expected, atol=1e-4, rtol=1e-4)


def test_compiled_encoders_have_no_breaks_and_agree() -> None:
    encoder, waveforms = pruned(), torch.randn(2, 900)
    expected = states(encoder, waveforms)
    compiled = torch.compile(encoder, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(states(compiled, waveforms), expected, atol=1e-5, rtol=1e-5)
    torch._dynamo.reset()


def _groups_of_two(encoder: SpeechEncoder) -> None:
    layer = encoder.feature_extractor.conv_layers[0]
    layer.layer_norm = nn.GroupNorm(8, 16)


def _no_norm_weights(encoder: SpeechEncoder) -> None:
    layer = encoder.feature_extractor.conv_layers[0]
    layer.layer_norm = nn.GroupNorm(16, 16, affine=False)


def _another_norm(encoder: SpeechEncoder) -> None:
    layer = encoder.feature_extractor.conv_layers[1]
    layer.layer_norm = nn.InstanceNorm1d(12)


def _dilated(encoder: SpeechEncoder) -> None:
    encoder.feature_extractor.conv_layers[1].conv.dilation = (2,)


def _circular(encoder: SpeechEncoder) -> None:
    conv = nn.Conv1d(32, 32, 32, padding=16, groups=2, padding_mode="circular")
    encoder.pos_conv_embed.conv = conv


def _weight_norm(encoder: SpeechEncoder) -> None:
    conv = encoder.pos_conv_embed.conv
    nn.utils.parametrizations.weight_norm(conv, dim=2)
    with torch.no_grad():
        conv.parametrizations.weight.original0.mul_(1.5)  # type: ignore[union-attr, operator]


def _hooked_norm(encoder: SpeechEncoder) -> None:
    norm = encoder.feature_extractor.conv_layers[0].layer_norm
    norm.register_forward_hook(lambda _, __, y: 2 * y)  # type: ignore[union-attr]


class Louder(nn.Linear):
    """A subclass that does more than to multiply by its weight."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(x)


def _subclassed(encoder: SpeechEncoder) -> None:
    feed_forward = encoder.layers[0].feed_forward
    feed_forward.output_dense.__class__ = Louder  # type: ignore[union-attr]


def _hooked_layer(encoder: SpeechEncoder) -> None:
    encoder.feature_extractor.conv_layers[1].register_forward_pre_hook(lambda _, args: (2 * args[0],))


CHANGES = [
    _groups_of_two,
    _no_norm_weights,
    _another_norm,
    _dilated,
    _circular,
    _weight_norm,
    _hooked_norm,
    _subclassed,
    _hooked_layer,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
def test_what_somebody_changed_has_its_effect(change: Callable[[SpeechEncoder], None]) -> None:
    waveforms = torch.randn(2, 1500)
    encoder = random_encoder(wavlm(), 0)
    before = states(encoder, waveforms)
    change(encoder)
    expected = states(encoder, waveforms)
    with torch.inference_mode():
        torch.testing.assert_close(states(encoder, waveforms), expected, atol=1e-5, rtol=1e-5)
    assert expected.shape != before.shape or not torch.allclose(before, expected, atol=1e-3)


def test_global_hooks_see_every_module() -> None:
    encoder, waveforms = pruned(), torch.randn(1, 900)
    seen: list[nn.Module] = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, _, __: seen.append(module))
    try:
        with torch.inference_mode():
            encoder(waveforms)
    finally:
        handle.remove()
    leaves = {module for module in encoder.modules() if not list(module.children())}
    assert leaves <= set(seen)


def test_short_clips_in_float32_keep_the_weights_where_they_are() -> None:
    """Copying the weights of even heads together pays only for many frames, or where autocast copies them anyway."""
    encoder = random_encoder(wavlm(), 0)

    def reasons(samples: int) -> set[str]:
        with torch.inference_mode(), record_choices() as choices:
            encoder(torch.randn(1, samples))
        return choices[ONE_PRODUCT]

    frames = attention.FEWEST_ROWS
    enough = encoder.anatomy.receptive_field + encoder.anatomy.hop * (frames - 1)
    assert reasons(enough - 1) == {"copying the weights takes longer than it saves"}
    assert reasons(enough) == {""}
    with torch.autocast("cpu", torch.bfloat16):
        assert reasons(900) == {""}


@pytest.mark.parametrize("change", ["hook on the gate", "table of pairs"])
def test_changed_position_biases_have_their_effect(change: str) -> None:
    encoder, waveforms = pruned(), torch.randn(2, 1500)
    before = states(encoder, waveforms)
    if change == "hook on the gate":
        for layer in encoder.layers:
            if layer.attention is not None and layer.attention.heads:
                layer.attention.gate.register_forward_hook(lambda _, __, bias: 2 * bias)
    else:
        encoder.rel_attn_embed.register_forward_hook(lambda _, __, bias: 3 * bias_of_pairs(bias))
    expected = states(encoder, waveforms)
    with torch.inference_mode():
        torch.testing.assert_close(states(encoder, waveforms), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(before, expected, atol=1e-3)
