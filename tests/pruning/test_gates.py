"""Hard concrete gates: every equation by hand or against samples; expected sizes against what surgery leaves."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from drawn import anatomies
from measures import COSTS, expected_cost
from slimvox.costs import Cost
from slimvox.pruning.gates import GateLayout, Gates
from slimvox.pruning.gates.gates import gate_histograms
from slimvox.pruning.gates.hard_concrete import (
    SHIFT,
    location,
    open_probability,
    sample,
    stretched,
    typical_open_value,
)
from slimvox.pruning.surgery import survivors
from slimvox.structures import Address, structure, structure_names
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.util.errors import SlimvoxError

SAMPLES = 20_000


@pytest.mark.parametrize("log_alpha", [-4.0, -1.0, 0.0, 1.5, 4.6])
def test_open_probability_matches_samples(log_alpha: float) -> None:
    z = sample(torch.full((SAMPLES,), log_alpha), torch.rand(SAMPLES), straight_through=False)
    assert z.min() >= 0 and z.max() <= 1
    expected = float(open_probability(torch.tensor(log_alpha)))
    assert float((z > 0).float().mean()) == pytest.approx(expected, abs=4 * 0.5 / SAMPLES**0.5)


def test_straight_through_passes_every_gradient() -> None:
    """At log_alpha = 4.6, 4.5 % of samples pass a gradient without it, and all with it."""
    u = torch.rand(SAMPLES)
    for straight_through, share in ((False, 0.045), (True, 1.0)):
        log_alpha = torch.full((SAMPLES,), 4.6, requires_grad=True)
        sample(log_alpha, u, straight_through=straight_through).sum().backward()
        assert log_alpha.grad is not None
        passed = float((log_alpha.grad.abs() > 0).float().mean())
        assert passed == pytest.approx(share, abs=0.01)


@given(log_alpha=st.floats(-6, 6))
def test_straight_through_gradient_is_that_of_the_unclipped(log_alpha: float) -> None:
    u = torch.rand(64)
    a = torch.full((64,), log_alpha, requires_grad=True)
    b = torch.full((64,), log_alpha, requires_grad=True)
    through, unclipped = sample(a, u, straight_through=True), stretched(b, u)
    assert torch.allclose(through.detach(), unclipped.detach().clamp(0, 1), atol=1e-6)
    (grad_a,) = torch.autograd.grad(through.sum(), a)
    (grad_b,) = torch.autograd.grad(unclipped.sum(), b)
    assert torch.equal(grad_a, grad_b)


@given(log_alpha=st.floats(-40, 40))
def test_typical_open_value_is_the_median_of_an_open_gate(log_alpha: float) -> None:
    """Against the definition in float64, with the probability that a gate is open given by its distance from 0."""
    value = float(typical_open_value(torch.tensor(log_alpha)))
    assert 0.145 < value <= 1
    opened = 1 / (1 + math.exp(-(log_alpha - 2 / 3 * math.log(0.1 / 1.1))))
    logit = math.log(1 - opened / 2) - math.log(opened / 2)
    s = 1 / (1 + math.exp(-1.5 * (logit + log_alpha)))
    assert value == pytest.approx(min(1.0, 1.2 * s - 0.1), abs=2e-5)


def test_half_of_the_open_samples_lie_below_the_typical_open_value() -> None:
    log_alpha = torch.linspace(-4, 1, 6)[:, None]
    z = sample(log_alpha.expand(-1, SAMPLES), torch.rand(6, SAMPLES), straight_through=False)
    below = ((z > 0) & (z < typical_open_value(log_alpha))).sum(1) / (z > 0).sum(1)
    assert below.tolist() == pytest.approx([0.5] * 6, abs=0.06)


def test_the_hard_concrete_distribution_at_single_points() -> None:
    """Equations 10 to 12 by hand: s = sigmoid(1.5 (logit u + log_alpha)), stretched to (-0.1, 1.1), clipped."""
    log_alpha, u = torch.tensor([0.0, 0.0, 1.0, -1.0]), torch.tensor([0.5, 0.25, 0.75, 0.25])
    by_hand = [
        1.2 / (1 + math.exp(-1.5 * (logit + location))) - 0.1
        for logit, location in ((0.0, 0.0), (-math.log(3), 0.0), (math.log(3), 1.0), (-math.log(3), -1.0))
    ]
    assert stretched(log_alpha, u).tolist() == pytest.approx(by_hand, abs=1e-6)
    assert sample(log_alpha, u, straight_through=False).tolist() == pytest.approx(
        [0.5, by_hand[1], 1.0, 0.0], abs=1e-6
    )
    assert float(open_probability(torch.tensor(0.0))) == pytest.approx(1 / (1 + (0.1 / 1.1) ** (2 / 3)))
    # Noise of exactly 0 or 1 is taken for the nearest value that has a logit.
    ends = stretched(torch.zeros(2), torch.tensor([0.0, 1.0]))
    assert ends.tolist() == pytest.approx([-0.1, 1.1], abs=1e-3)
    far = stretched(torch.full((2,), 14.0), torch.tensor([0.0, 1e-6]))
    assert float(far[0]) == float(far[1]) > 0.5


def test_location_inverts_the_drop_rate() -> None:
    assert location(0.01) == pytest.approx(4.595, abs=1e-3)
    with pytest.raises(ValueError, match="between 0 and 1"):
        location(1.0)


@given(
    data=st.data(), anatomy=anatomies(), structures=st.sets(st.sampled_from(structure_names()), min_size=1)
)
def test_expected_costs_are_exact(data: st.DataObject, anatomy: EncoderAnatomy, structures: set[str]) -> None:
    """Gates are independent, so an expectation is linear in each probability and right if it is so at 0 and 1.

    At 0 and 1 it is the cost of what surgery leaves; between them it is the mean of both ends.
    """
    gates = Gates(anatomy, structures)
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    opened = torch.rand(gates.log_alpha.shape, generator=generator) < data.draw(
        st.sampled_from([0.2, 0.5, 0.9])
    )
    _avoid_corners(anatomy, gates, opened)
    gates.log_alpha.data = torch.where(opened, 40.0, -40.0)
    left = survivors(anatomy, gates.layout.masks(opened.float())).anatomy(anatomy)
    for cost in COSTS.values():
        # Float32 sums; a head is 1 parameter in some thousands, the bias gate some dozens.
        expected = float(expected_cost(cost, anatomy, gates).detach())
        assert expected == pytest.approx(cost.of(left), rel=1e-6, abs=1), cost.kind

    gates.log_alpha.data = 3 * torch.randn(gates.log_alpha.shape, generator=generator)
    gate = int(torch.randint(len(gates.log_alpha), (), generator=generator))
    middle = float(open_probability(gates.log_alpha.detach()[gate]))

    def total(cost: Cost, log_alpha: float) -> float:
        gates.log_alpha.data[gate] = log_alpha
        return float(expected_cost(cost, anatomy, gates).detach())

    for cost in COSTS.values():
        between = total(cost, math.log(middle / (1 - middle)) + SHIFT)
        ends = total(cost, -40.0), total(cost, 40.0)
        assert between == pytest.approx((1 - middle) * ends[0] + middle * ends[1], rel=1e-5)


def _avoid_corners(anatomy: EncoderAnatomy, gates: Gates, opened: torch.Tensor) -> None:
    """Open what `ExpectedCounts` names as corners: last channels, taps, value dimensions, heads, attention blocks."""
    for address, part in gates.layout.slices.items():
        if structure(address.structure).min_kept or address.structure == "vo":
            for span in gates.layout.spans(address):
                opened[span.start] = True
        elif address.structure == "head" or address == Address("attention", 0):
            opened[part.start] = True


def test_gates_are_laid_out_front_end_first_then_layer_by_layer() -> None:
    anatomy = drawn_anatomy()
    heads, width = anatomy.attention_heads, anatomy.head_width
    gates = Gates(anatomy, structure_names(), initial_drop=0.2, initial_drops={"conv": 0.01, "qk": 0.5})
    channels = [("conv", index, each.channels) for index, each in enumerate(anatomy.convolutions)]
    layer = [("attention", 1), ("head", heads), ("qk", heads * width), ("vo", heads * width)]
    layer += [("feed_forward", 1), ("intermediate", anatomy.layers[0].intermediate)]
    expected = [*channels, ("position", 0, anatomy.position_kernel)] + [
        (name, index, size) for index in range(len(anatomy.layers)) for name, size in layer
    ]
    slices = gates.layout.slices
    assert [(*address, part.stop - part.start) for address, part in slices.items()] == expected
    assert [part.start for part in slices.values()] == [0, *(part.stop for part in [*slices.values()][:-1])]
    assert gates.log_alpha.shape == (gates.layout.size,)
    drops = {"conv": 0.01, "qk": 0.5}
    for address, part in slices.items():
        drop = drops.get(address.structure, 0.2)
        assert gates.log_alpha.detach()[part].tolist() == pytest.approx(
            [math.log((1 - drop) / drop)] * (part.stop - part.start), abs=1e-6
        )
    assert (
        GateLayout(anatomy, ["vo", "conv"]).size
        == sum(c for _, _, c in channels) + len(anatomy.layers) * heads * width
    )
    with pytest.raises(SlimvoxError, match=r"none of the structures to be pruned \(none is chosen\)"):
        Gates(anatomy, [])
    with pytest.raises(KeyError, match="no structure is named toes"):
        Gates(anatomy, ["toes"])


def test_masks_are_cut_from_the_vector_in_the_order_of_the_layout() -> None:
    anatomy = drawn_anatomy()
    layout = GateLayout(anatomy, structure_names())
    masks = layout.masks(torch.arange(float(layout.size)))
    assert masks.keys() == layout.slices.keys()
    for address, part in layout.slices.items():
        assert masks[address].tolist() == list(range(part.start, part.stop))
    layout = GateLayout(anatomy, ["conv", "head", "qk"])
    channels, heads, width = anatomy.convolutions[0].channels, anatomy.attention_heads, anatomy.head_width
    start = sum(each.channels for each in anatomy.convolutions)
    assert layout.spans(Address("conv", 0)) == (slice(0, channels),)
    assert layout.spans(Address("head", 0)) == (slice(start, start + heads),)
    assert layout.spans(Address("qk", 0)) == tuple(
        slice(start + heads + head * width, start + heads + (head + 1) * width) for head in range(heads)
    )


def test_samples_are_drawn_from_the_generator_and_follow_the_gates() -> None:
    gates = Gates(drawn_anatomy(), ["intermediate"])
    gates.log_alpha.data = torch.linspace(-6, 6, len(gates.log_alpha))
    first, again = (gates.sample(torch.Generator().manual_seed(3)) for _ in range(2))
    other = gates.sample(torch.Generator().manual_seed(4))
    values = [torch.cat(list(masks.values())) for masks in (first, again, other)]
    assert torch.equal(values[0], values[1]) and not torch.equal(values[0], values[2])
    u = torch.rand(len(gates.log_alpha), generator=torch.Generator().manual_seed(3))
    assert torch.equal(values[0], sample(gates.log_alpha, u, straight_through=True))
    values[0].sum().backward()
    assert gates.log_alpha.grad is not None and bool((gates.log_alpha.grad > 0).all())
    plain = Gates(drawn_anatomy(), ["intermediate"], straight_through=False)
    plain.log_alpha.data.fill_(8.0)
    plain.sample(torch.Generator().manual_seed(0))[Address("intermediate", 0)].sum().backward()
    assert plain.log_alpha.grad is not None and int(plain.log_alpha.grad.count_nonzero()) == 0


def test_histograms_count_gates_by_their_probability() -> None:
    gates = Gates(drawn_anatomy(), ["attention", "intermediate"])
    gates.log_alpha.data.fill_(40.0)
    parts = {address: part for address, part in gates.layout.slices.items() if address[0] == "intermediate"}
    start = parts[Address("intermediate", 0)].start
    gates.log_alpha.data[start] = SHIFT
    gates.log_alpha.data[start + 1] = -40.0
    counts = gate_histograms(gates)
    gated = sum(part.stop - part.start for part in parts.values())
    assert counts["attention"] == [0] * 19 + [len(gates.anatomy.layers)]
    assert counts["intermediate"] == [1] + [0] * 9 + [1] + [0] * 8 + [gated - 2]


def test_gates_are_float32_under_autocast() -> None:
    gates = Gates(drawn_anatomy(), structure_names())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        masks = gates.sample()
    assert all(mask.dtype == torch.float32 for mask in masks.values())


def drawn_anatomy() -> EncoderAnatomy:
    """The smallest WavLM of these tests."""
    from models import config
    from slimvox.checkpoint.transformers_config import anatomy_from_config

    return anatomy_from_config(config("wavlm").to_dict(), "test", normalize_waveform=False)
