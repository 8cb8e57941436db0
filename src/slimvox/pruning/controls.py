"""Gates that are not learned: what a pruned encoder has to beat at the same size and budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from slimvox.encoder import SpeechEncoder
from slimvox.gates import GateGroup, gate_spans
from slimvox.pruning.magnitude import magnitudes

Control = Literal["random", "magnitude", "top-layers", "thin"]
CONTROLS: tuple[Control, ...] = get_args(Control)


def control_scores(
    control: Control, encoder: SpeechEncoder, groups: Sequence[GateGroup], seed: int
) -> Tensor:
    """Scores by which a control keeps gates, (gates,); higher stays.

    Args:
        control: `random` draws them. `magnitude` takes the norms of the weights behind each gate. `top-layers` keeps
            the front end and drops Transformer layers from the top; the layer at the limit keeps what still fits of
            it, drawn at random, so that the size is the same. `thin` makes every width smaller by the same share (and
            its weights are forgotten: see `forgets_weights`).
        encoder: the dense one.
        groups: the layout of the gates.
        seed: of what is drawn.
    """
    if control == "magnitude":
        return magnitudes(encoder, groups)
    if control == "thin":
        return _evenly(encoder, groups)
    scores = torch.rand(groups[-1].stop, generator=torch.Generator().manual_seed(seed))
    if control == "random":
        return scores
    for group in groups:
        # Within a layer, first that its blocks exist, then their insides.
        insides = group.structure in ("qk", "vo", "intermediate", "head")
        level = 1.0 if group.structure == "conv" else -group.index - (0.5 if insides else 0.0)
        scores[group.slice] = level + 0.25 * scores[group.slice]
    return scores


def forgets_weights(control: Control | None) -> bool:
    """Whether the encoder is distilled from scratch: only its shape comes from the dense one."""
    return control == "thin"


def _evenly(encoder: SpeechEncoder, groups: Sequence[GateGroup]) -> Tensor:
    """By position within each width, so that any threshold cuts all of them by the same share; whole blocks stay."""
    scores = torch.ones(groups[-1].stop)
    for group in groups:
        if group.structure == "head":
            scores[group.slice] = _descending(group.stop - group.start)
        elif group.structure not in ("attention", "feed_forward"):
            for start, size in gate_spans(encoder.anatomy, group):
                scores[start : start + size] = _descending(size)
    return scores


def _descending(size: int) -> Tensor:
    return 1 - (torch.arange(size) + 0.5) / max(1, size)
