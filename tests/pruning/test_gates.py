"""Hard concrete gates: every equation against samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drawn import anatomies
from measures import MEASURES
from slimvox.anatomy import EncoderAnatomy
from slimvox.budget import Budget, CostMeasure
from slimvox.checkpoint import load_model
from slimvox.cost import cost, mac_costs, parameter_costs
from slimvox.errors import SlimvoxError
from slimvox.gates import STRUCTURES, Gates, check_reachable, final_masks, gate_groups, smallest_cost
from slimvox.gates.gates import GateGroup
from slimvox.gates.hard_concrete import location, open_probability, sample, stretched, typical_open_value
from slimvox.surgery import survivors

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


@given(log_alpha=st.floats(-8, 8))
def test_typical_open_value_is_the_median_of_open_samples(log_alpha: float) -> None:
    value = float(typical_open_value(torch.tensor(log_alpha)))
    assert 0 < value <= 1
    z = sample(torch.full((SAMPLES,), log_alpha), torch.rand(SAMPLES), straight_through=False)
    opened = z[z > 0]
    if len(opened) > 2000:
        assert float(opened.median()) == pytest.approx(value, abs=0.05)


def test_location_inverts_the_drop_rate() -> None:
    assert location(0.01) == pytest.approx(4.595, abs=1e-3)
    with pytest.raises(ValueError, match="between 0 and 1"):
        location(1.0)


@settings(max_examples=20)
@given(
    anatomy=anatomies(),
    structures=st.sets(st.sampled_from(STRUCTURES), min_size=1),
    drop=st.sampled_from([0.1, 0.5]),
)
def test_expected_size_is_the_mean_of_sampled_sizes(
    anatomy: EncoderAnatomy, structures: set[str], drop: float
) -> None:
    """Counted on what surgery leaves of 300 samples; samples that close a whole convolution are not valid."""
    gates = Gates(anatomy, structures, initial_drop=drop)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    sampled = []
    for _ in range(300):
        try:
            left = survivors(anatomy, gates.sample(generator)).anatomy(anatomy)
        except ValueError:
            continue
        sampled.append((cost(left, "params"), cost(left, "macs", seconds=1.0)))
    if len(sampled) < 290:
        return
    sizes = gates.expected_sizes()
    parameters, macs = torch.tensor(sampled, dtype=torch.float64).mean(0).tolist()
    spread = torch.tensor(sampled, dtype=torch.float64).std(0) / len(sampled) ** 0.5
    # The margin beyond the sampling error is for heads that lose all their values at once (heads are 2 to 6 wide here).
    assert float(parameter_costs(anatomy, sizes).total) == pytest.approx(
        parameters, abs=4 * float(spread[0]) + 0.03 * parameters
    )
    assert float(mac_costs(anatomy, 1.0, sizes).total) == pytest.approx(
        macs, abs=4 * float(spread[1]) + 0.03 * macs
    )


@settings(max_examples=60)
@given(
    anatomy=anatomies(),
    structures=st.sets(st.sampled_from(STRUCTURES), min_size=1),
    measure=st.sampled_from(list(MEASURES.values())),
    share=st.floats(0.0, 1.0),
    round_to=st.sampled_from([1, 2, 4, 8]),
    seed=st.integers(0, 1000),
)
def test_final_masks_never_exceed_the_target(
    anatomy: EncoderAnatomy,
    structures: set[str],
    measure: CostMeasure,
    share: float,
    round_to: int,
    seed: int,
) -> None:
    groups = gate_groups(anatomy, structures)  # type: ignore[arg-type]
    scores = torch.randn(groups[-1].stop, generator=torch.Generator().manual_seed(seed))
    budget = Budget(measure=measure, target=0, dense_cost=measure.cost(anatomy), round_to=round_to)
    smallest = smallest_cost(anatomy, groups, budget)
    budget = replace(budget, target=smallest + share * (budget.dense_cost - smallest))
    chosen = final_masks(anatomy, groups, scores, torch.full_like(scores, 0.7), budget)
    left = survivors(anatomy, chosen.masks).anatomy(anatomy)
    assert measure.cost(left) == chosen.cost <= budget.target
    for convolution, dense in zip(left.convolutions, anatomy.convolutions, strict=True):
        assert_rounded(convolution.channels, dense.channels, round_to, gated="conv" in structures)
    for layer, dense_layer in zip(left.layers, anatomy.layers, strict=True):
        if layer.feed_forward:
            assert_rounded(
                layer.intermediate, dense_layer.intermediate, round_to, gated="intermediate" in structures
            )
        for head in layer.heads:
            whole = anatomy.head_width
            assert_rounded(head.qk, whole, round_to, gated="qk" in structures)
            assert_rounded(head.vo, whole, round_to, gated="vo" in structures)


def assert_rounded(size: int, dense: int, round_to: int, *, gated: bool) -> None:
    assert size == dense or (gated and size % round_to == 0)


@pytest.mark.parametrize("round_to", [1, 8])
@pytest.mark.parametrize("kind", ["params", "macs"])
@pytest.mark.parametrize("seed", range(3))
def test_final_masks_come_within_half_a_percent(kind: str, seed: int, round_to: int) -> None:
    from slimvox.checkpoint.transformers_reader import anatomy_from_config

    config = {"model_type": "wavlm", "hidden_size": 192, "num_attention_heads": 6, "intermediate_size": 768}
    anatomy = anatomy_from_config(config, "test", normalize_waveform=False)
    groups = gate_groups(anatomy, STRUCTURES)
    scores = torch.randn(groups[-1].stop, generator=torch.Generator().manual_seed(seed))
    measure = MEASURES[kind]
    whole = measure.cost(anatomy)
    budget = Budget(measure=measure, target=0.28 * whole, dense_cost=whole, round_to=round_to)
    chosen = final_masks(anatomy, groups, scores, torch.ones_like(scores), budget)
    assert 0.995 * budget.target <= chosen.cost <= budget.target


def check_target_is_met(
    anatomy: EncoderAnatomy, groups: Sequence[GateGroup], scores: torch.Tensor, kind: str, share: float
) -> None:
    """Masks of these scores come within half a percent of a share of the cost, and not above it."""
    measure = MEASURES[kind]
    whole = measure.cost(anatomy)
    budget = Budget(measure=measure, target=share * whole, dense_cost=whole)
    chosen = final_masks(anatomy, groups, scores, torch.ones_like(scores), budget)
    assert 0.995 * budget.target <= chosen.cost <= budget.target


@pytest.mark.parametrize("seed", range(4))
def test_final_masks_come_within_half_a_percent_where_whole_blocks_are_last_in_line(
    seed: int, teacher: Path
) -> None:
    # Each block comes with all its dimensions open, 5 % of this encoder at once.
    anatomy = load_model(teacher).encoder.anatomy
    groups = gate_groups(anatomy, STRUCTURES)
    scores = torch.rand(groups[-1].stop, generator=torch.Generator().manual_seed(seed))
    for group in groups:
        if group.structure in ("attention", "feed_forward", "head"):
            scores[group.slice] -= 1
    check_target_is_met(anatomy, groups, scores, "params", 0.45)


@pytest.mark.parametrize("seed", [10, 17, 25, 26])
def test_final_masks_come_within_half_a_percent_where_channels_are_last_in_line(
    seed: int, teacher: Path
) -> None:
    # In MACs one channel is more than half a percent of this encoder, and only feed-forward dimensions are less: they
    # have to make way, although channels have lower scores.
    anatomy = load_model(teacher).encoder.anatomy
    groups = gate_groups(anatomy, {"conv", "head", "intermediate"})
    scores = torch.rand(groups[-1].stop, generator=torch.Generator().manual_seed(seed))
    for group in groups:
        if group.structure == "intermediate":
            scores[group.slice] += 1
        if group.structure == "head":
            scores[group.slice] -= 1
    check_target_is_met(anatomy, groups, scores, "macs", 0.6)


def test_a_target_out_of_reach_is_named() -> None:
    from slimvox.checkpoint.transformers_reader import anatomy_from_config

    anatomy = anatomy_from_config({"model_type": "hubert"}, "test", normalize_waveform=False)
    groups = gate_groups(anatomy, {"intermediate"})
    with pytest.raises(SlimvoxError, match="can't be reached"):
        check_reachable(
            anatomy, groups, Budget(measure=CostMeasure(), target=0.2 * 94e6, dense_cost=94_000_000)
        )
    with pytest.raises(SlimvoxError, match="can't be reached"):
        final_masks(
            anatomy,
            groups,
            torch.zeros(groups[-1].stop),
            torch.ones(groups[-1].stop),
            Budget(measure=CostMeasure(), target=1e6, dense_cost=94_000_000),
        )


def test_gates_are_float32_under_autocast() -> None:
    gates = Gates(drawn_anatomy(), STRUCTURES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        masks = gates.sample()
    assert all(mask is not None and mask.dtype == torch.float32 for mask in masks.conv)


def drawn_anatomy() -> EncoderAnatomy:
    """The smallest WavLM of these tests."""
    from models import config
    from slimvox.checkpoint.transformers_reader import anatomy_from_config

    return anatomy_from_config(config("wavlm").to_dict(), "test", normalize_waveform=False)
