"""Scores that are not learned: what a pruned encoder has to beat at the same size and budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from slimvox.gates import GateGroup

Control = Literal["random", "top-layers"]
CONTROLS: tuple[Control, ...] = ("random", "top-layers")


def control_scores(control: Control, groups: Sequence[GateGroup], seed: int) -> Tensor:
    """Scores by which a control keeps gates, (gates,); higher stays.

    `random` draws them. `top-layers` keeps the front end and drops Transformer layers from the top; the layer at the
    limit keeps what still fits of it, drawn at random, so that the size is the same.
    """
    scores = torch.rand(groups[-1].stop, generator=torch.Generator().manual_seed(seed))
    if control == "random":
        return scores
    for group in groups:
        # Within a layer, first that its blocks exist, then their insides.
        insides = group.structure in ("qk", "vo", "intermediate", "head")
        level = 1.0 if group.structure == "conv" else -group.index - (0.5 if insides else 0.0)
        scores[group.slice] = level + 0.25 * scores[group.slice]
    return scores
