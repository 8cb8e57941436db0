"""Products by oneDNN are those of torch, whatever the sizes and strides."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nightly import examples
from slimvox.encoder.backend import record_choices
from slimvox.encoder.linear import WAY, EmptyLinear, apply_linear, linear, linear_map

linear_module = sys.modules[EmptyLinear.__module__]
FASTER = linear_module._mkl_is_faster


@pytest.mark.parametrize("sizes", [(5, 7), (64, 48), (0, 6), (6, 0)])
@pytest.mark.parametrize("shape", [(), (1,), (3, 17)])
def test_linear_maps_of_any_size_agree(sizes: tuple[int, int], shape: tuple[int, ...]) -> None:
    layer = linear_map(*sizes)
    assert type(layer) is (nn.Linear if all(sizes) else EmptyLinear)
    x = torch.randn(*shape, sizes[0])
    with torch.no_grad():
        torch.testing.assert_close(
            apply_linear(layer, x), F.linear(x, layer.weight, layer.bias), rtol=1e-5, atol=1e-5
        )


@settings(max_examples=examples(60))
@given(
    data=st.data(),
    rows=st.sampled_from([1, 30, 64, 128]),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 40),
    gelu=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_any_strides_agree(
    data: st.DataObject, rows: int, inputs: int, outputs: int, gelu: bool, dtype: torch.dtype
) -> None:
    def drawn(*shape: int) -> Tensor:
        whole = torch.randn(*(2 * size + 1 for size in shape)).to(dtype)
        steps = [data.draw(st.sampled_from([1, 2])) for _ in shape]
        view = whole[tuple(slice(1, 1 + size * step, step) for size, step in zip(shape, steps, strict=True))]
        kind = data.draw(st.sampled_from(["as is", "transposed", "expanded"]))
        if kind == "transposed":
            return view.movedim(0, -1).contiguous().movedim(-1, 0)
        return view[:1].expand(shape) if kind == "expanded" else view

    x, weight, bias = (
        drawn(2, rows // 2 + 1, inputs)[:, : max(1, rows // 2)],
        drawn(outputs, inputs),
        drawn(outputs),
    )
    with torch.inference_mode(), record_choices() as choices:
        product = linear(x, weight, bias, gelu=gelu)
        expected = F.linear(x.double(), weight.double(), bias.double())
        expected = F.gelu(expected) if gelu else expected
    tolerance = 1e-4
    if dtype == torch.bfloat16:
        # oneDNN rounds only the result, not what goes into the GELU; torch rounds partial sums.
        tolerance = torch.finfo(dtype).eps * (1 if choices[WAY] == {""} else 8)
    torch.testing.assert_close(product.double(), expected, rtol=tolerance, atol=tolerance)


def test_what_onednn_is_not_asked_for() -> None:
    layer, x = linear_map(8, 4), torch.randn(3, 8)

    def reasons(layer: nn.Module, x: Tensor) -> set[str]:
        with torch.no_grad(), record_choices() as choices:
            apply_linear(layer, x)
        return choices[WAY]

    assert reasons(layer, x) == {""}
    with torch.autocast("cpu", torch.bfloat16):
        assert reasons(layer, x) == {"autocast casts the tensors"}
        assert reasons(layer, x.bfloat16()) == {"a tensor is torch.float32"}
    assert reasons(layer.double(), x.double()) == {"a tensor is torch.float64"}
    assert reasons(linear_map(8, 4), x[:0]) == {"a tensor is empty"}
    layer = linear_map(4, 8)
    layer.weight = nn.Parameter(torch.randn(4, 8).T)
    assert reasons(layer, torch.randn(3, 4)) == {"weights are not contiguous"}
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        reasons(layer, torch.randn(3, 5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_patches_that_overlap_are_rows(dtype: torch.dtype) -> None:
    patches = torch.randn(1000).to(dtype).unfold(0, 12, 4)
    weight = torch.randn(7, 12).to(dtype)
    with torch.no_grad():
        expected = F.linear(patches.double(), weight.double())
        tolerance = 1e-5 if dtype == torch.float32 else torch.finfo(dtype).eps
        torch.testing.assert_close(
            linear(patches, weight, None).double(), expected, rtol=tolerance, atol=tolerance
        )


def test_mkl_is_left_alone_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not faster there: torch's own product in bfloat16 is one of oneDNN."""
    monkeypatch.setattr(linear_module, "_mkl_is_faster", lambda: True)
    layer, x = linear_map(8, 4).bfloat16(), torch.randn(3, 8).bfloat16()
    for supported in (True, False):
        monkeypatch.setattr(linear_module, "_onednn_has_bf16", lambda there=supported: there)
        with torch.no_grad(), record_choices() as choices:
            torch.testing.assert_close(apply_linear(layer, x), layer(x))
            with torch.autocast("cpu", torch.bfloat16):
                torch.testing.assert_close(apply_linear(layer, x), layer(x))
        assert choices[WAY] == {"" if supported else "the processor has no instructions for bfloat16"}


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
    layer = linear_map(8, 4)
    apply_linear(layer, torch.randn(3, 8)).sum().backward()
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


@pytest.mark.parametrize("gelu", [False, True])
def test_mkl_computes_the_products_where_it_is_faster(monkeypatch: pytest.MonkeyPatch, gelu: bool) -> None:
    layer, x = linear_map(8, 4), torch.randn(3, 8)
    with torch.no_grad():
        by_onednn = apply_linear(layer, x, gelu=gelu)
        monkeypatch.setattr(linear_module, "_mkl_is_faster", lambda: True)
        with record_choices() as choices:
            torch.testing.assert_close(apply_linear(layer, x, gelu=gelu), by_onednn)
            torch.testing.assert_close(linear(x, layer.weight, layer.bias, gelu=gelu), by_onednn)
    assert choices[WAY] == {"MKL is faster on this processor"}


@pytest.mark.parametrize("vendor", ["GenuineIntel", "AuthenticAMD"])
def test_mkl_is_for_processors_of_its_vendor(monkeypatch: pytest.MonkeyPatch, vendor: str) -> None:
    monkeypatch.setattr(Path, "is_file", lambda _: True)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"vendor_id\t: {vendor}\n")
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    assert FASTER.__wrapped__() == (vendor == "GenuineIntel")
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert not FASTER.__wrapped__()
