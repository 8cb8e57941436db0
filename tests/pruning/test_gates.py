"""Hard concrete gates: every equation against samples."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drawn import anatomies
from slimvox.anatomy import EncoderAnatomy
from slimvox.cost import cost, mac_costs, parameter_costs
from slimvox.errors import SlimvoxError
from slimvox.gates import STRUCTURES, Gates, check_reachable, final_masks, gate_groups, smallest_cost
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
    kind=st.sampled_from(["params", "macs"]),
    share=st.floats(0.0, 1.0),
    seed=st.integers(0, 1000),
)
def test_final_masks_never_exceed_the_target(
    anatomy: EncoderAnatomy, structures: set[str], kind: str, share: float, seed: int
) -> None:
    groups = gate_groups(anatomy, structures)  # type: ignore[arg-type]
    scores = torch.randn(groups[-1].stop, generator=torch.Generator().manual_seed(seed))
    smallest = smallest_cost(anatomy, groups, kind, seconds=1.0)  # type: ignore[arg-type]
    target = smallest + share * (cost(anatomy, kind, seconds=1.0) - smallest)  # type: ignore[arg-type]
    chosen = final_masks(
        anatomy,
        groups,
        scores,
        torch.full_like(scores, 0.7),
        target=target,
        kind=kind,
        seconds=1.0,  # type: ignore[arg-type]
    )
    left = survivors(anatomy, chosen.masks).anatomy(anatomy)
    assert cost(left, kind, seconds=1.0) == chosen.cost <= target  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["params", "macs"])
@pytest.mark.parametrize("seed", range(3))
def test_final_masks_come_within_half_a_percent(kind: str, seed: int) -> None:
    from slimvox.checkpoint.transformers_reader import anatomy_from_config

    config = {"model_type": "wavlm", "hidden_size": 192, "num_attention_heads": 6, "intermediate_size": 768}
    anatomy = anatomy_from_config(config, "test", normalize_waveform=False)
    groups = gate_groups(anatomy, STRUCTURES)
    scores = torch.randn(groups[-1].stop, generator=torch.Generator().manual_seed(seed))
    target = 0.28 * cost(anatomy, kind)  # type: ignore[arg-type]
    chosen = final_masks(anatomy, groups, scores, torch.ones_like(scores), target=target, kind=kind)  # type: ignore[arg-type]
    assert 0.995 * target <= chosen.cost <= target


def test_a_target_out_of_reach_is_named() -> None:
    from slimvox.checkpoint.transformers_reader import anatomy_from_config

    anatomy = anatomy_from_config({"model_type": "hubert"}, "test", normalize_waveform=False)
    groups = gate_groups(anatomy, {"intermediate"})
    with pytest.raises(SlimvoxError, match="can't be reached"):
        check_reachable(anatomy, groups, "params", target=0.2 * 94e6)
    with pytest.raises(SlimvoxError, match="can't be reached"):
        final_masks(
            anatomy,
            groups,
            torch.zeros(groups[-1].stop),
            torch.ones(groups[-1].stop),
            target=1e6,
            kind="params",
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
