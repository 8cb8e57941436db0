"""Baselines with gates that are not learned, for comparison at the same size and budget."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from slimvox.encoder import SpeechEncoder
from slimvox.pruning.gates import GateLayout
from slimvox.structures import structure

Control = Literal["random", "magnitude", "top-layers", "thin"]
CONTROLS: tuple[Control, ...] = get_args(Control)


def control_scores(control: Control, encoder: SpeechEncoder, layout: GateLayout, seed: int) -> Tensor:
    """Scores by which a control keeps gates, (gates,); the highest are kept.

    Args:
        control: `random` draws them. `magnitude` takes the norms of the weights behind each gate. `top-layers` keeps
            what precedes the Transformer layers and drops these from the top; the layer at the limit keeps what still
            fits of it, drawn at random, so that the size is the same. `thin` makes every width smaller by the same
            share (and its weights are drawn anew, see `resets_weights`).
        encoder: the dense one.
        layout: the layout of the gates.
        seed: random seed of what is drawn.
    """
    if control == "magnitude":
        return magnitudes(encoder, layout)
    if control == "thin":
        return _evenly(layout)
    scores = torch.rand(layout.size, generator=torch.Generator().manual_seed(seed))
    if control == "random":
        return scores
    for address, each in layout.slices.items():
        kind = structure(address.structure)
        # Within a layer, first that its blocks exist, then their contents.
        level = -address.index - (0.0 if kind.kind == "block" else 0.5) if kind.per_layer else 1.0
        scores[each] = level + 0.25 * scores[each]
    return scores


def resets_weights(control: Control | None) -> bool:
    """True if the encoder is distilled from scratch, with only its shape taken from the dense one."""
    return control == "thin"


@torch.no_grad()
def magnitudes(encoder: SpeechEncoder, layout: GateLayout) -> Tensor:
    """The norm of the weights that each gate would remove (`Structure.magnitude`), divided by its structure's mean,
    (gates,).

    Between structures, only values relative to the mean of the own structure are compared.
    """
    # Weights of size 0 are buffers, see `EmptyLinear`.
    parameters = dict(encoder.named_parameters()) | dict(encoder.named_buffers())
    norms = {
        address: structure(address.structure).magnitude(parameters, encoder.anatomy, address.index).cpu()
        for address in layout.slices
    }
    means: dict[str, Tensor] = {}
    for name in dict.fromkeys(address.structure for address in norms):
        alike = torch.cat([each for address, each in norms.items() if address.structure == name])
        means[name] = alike.mean().clamp(min=1e-12)
    return torch.cat([each / means[address.structure] for address, each in norms.items()])


def _evenly(layout: GateLayout) -> Tensor:
    """Scores by position within each width, so that any threshold removes the same share of each; blocks are kept."""
    scores = torch.ones(layout.size)
    for address in layout.slices:
        if structure(address.structure).kind != "block":
            for span in layout.spans(address):
                size = span.stop - span.start
                scores[span] = 1 - (torch.arange(size) + 0.5) / max(1, size)
    return scores
