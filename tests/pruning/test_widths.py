"""Widths of the final masks: rounded to multiples, and shared by the heads of a layer."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from measures import COSTS, SMALL, budget_for
from nightly import examples
from slimvox.checkpoint.transformers_config import anatomy_from_config
from slimvox.costs import Parameters
from slimvox.pruning.budget import Budget
from slimvox.pruning.gates import GateLayout, final_masks
from slimvox.pruning.gates.widths import Widths
from slimvox.pruning.surgery import survivors
from slimvox.structures import Address
from slimvox.structures.parts import HeadAnatomy


@settings(max_examples=examples(20))
@given(
    widths=st.lists(st.sampled_from([10, 16, 40, 48, 64]), min_size=2, max_size=3),
    round_to=st.sampled_from([1, 8, 32]),
    share=st.floats(0.2, 0.8),
    seed=st.integers(0, 1000),
)
def test_rounding_rounded_widths_again_does_not_change_the_cost(
    widths: list[int], round_to: int, share: float, seed: int
) -> None:
    """Encoders that were pruned before have heads of unequal width, which limit the common width of a layer."""
    dense = anatomy_from_config(
        {"model_type": "wavlm", "hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 64},
        "test",
        normalize_waveform=False,
    )
    heads = tuple(HeadAnatomy(index=index, qk=width, vo=width) for index, width in enumerate(widths))
    anatomy = replace(dense, layers=tuple(replace(layer, heads=heads) for layer in dense.layers[:2]))
    layout = GateLayout(anatomy, ["qk", "vo", "intermediate"])
    budget = budget_for(layout, COSTS["params"], share, round_to, fast_widths=True)
    scores = torch.rand(layout.size, generator=torch.Generator().manual_seed(seed))
    chosen = final_masks(layout, scores, torch.ones(layout.size), budget)
    assert budget.cost.of(survivors(anatomy, chosen.masks).anatomy(anatomy)) == chosen.cost <= budget.target


def test_the_best_gates_of_a_rounded_width_stay() -> None:
    layout = GateLayout(SMALL, ["intermediate"])
    scores = torch.rand(layout.size, generator=torch.Generator().manual_seed(1))
    budget = budget_for(layout, Parameters(), 0.5, 8)
    chosen = final_masks(layout, scores, torch.ones_like(scores), budget)
    for part in layout.slices.values():
        opened, own = chosen.open[part], scores[part]
        assert int(opened.sum()) % 8 == 0
        assert float(own[opened].min()) > float(own[~opened].max())


def test_thin_heads_close_and_the_others_share_their_mean_width() -> None:
    """Three heads of 32 dimensions stay with 12 + 8, 30 + 26 and 10 + 14 open ones, and one with 3 + 3 does not."""
    layout = GateLayout(SMALL, ["head", "qk", "vo"])
    scores = torch.full((layout.size,), -1.0)
    opened = {(0, "qk"): 12, (0, "vo"): 8, (2, "qk"): 30, (2, "vo"): 26, (4, "qk"): 3, (4, "vo"): 3}
    opened |= {(5, "qk"): 10, (5, "vo"): 14, (1, "qk"): 32, (1, "vo"): 32}
    for (head, name), count in opened.items():
        span = layout.spans(Address(name, 3))[head]
        scores[span.start : span.start + count] = 1
    heads = layout.slices[Address("head", 3)]
    scores[heads] = 1
    scores[heads.start + 1] = -1  # closed as a whole, so that its open dimensions do not count
    widths = Widths(layout, scores, Budget(cost=Parameters(), target=1, dense_cost=1, fast_widths=True))
    left = survivors(SMALL, layout.masks(widths.rounded(scores > 0).float())).anatomy(SMALL)
    # Means 10, 28 and 12; their mean is 16.7.
    assert [(head.index, head.qk, head.vo) for head in left.layers[3].heads] == [
        (0, 16, 16),
        (2, 16, 16),
        (5, 16, 16),
    ]
    # A single head with 9 and 10, nearer to 8 than to 16 but worth its time only from 16.
    scores[layout.slices[Address("head", 4)].start] = 1
    for name, count in (("qk", 9), ("vo", 10)):
        start = layout.spans(Address(name, 4))[0].start
        scores[start : start + count] = 1
    left = survivors(SMALL, layout.masks(widths.rounded(scores > 0).float())).anatomy(SMALL)
    assert [(head.index, head.qk, head.vo) for head in left.layers[4].heads] == [(0, 16, 16)]
    best = layout.spans(Address("qk", 3))[2]
    assert torch.equal(widths.rounded(scores > 0)[best], torch.arange(32) < 16)
