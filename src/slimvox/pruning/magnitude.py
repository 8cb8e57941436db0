"""How large the weights behind each gate are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from slimvox.encoder import SpeechEncoder
from slimvox.gates import GateGroup


@torch.no_grad()
def magnitudes(encoder: SpeechEncoder, groups: Sequence[GateGroup]) -> Tensor:
    """The norm of what each gate would take out, (gates,), over the mean of its kind of structure.

    A dimension's norm is that of the rows and columns that write and read it, multiplied; a head's is the mean over its
    value dimensions; a block's is the norm of its output map. Between structures of different kinds only the distance
    from the average of its own kind is compared.

    Args:
        encoder: the dense one.
        groups: the layout of the gates.
    """
    # Weights of size 0 are buffers, see `EmptyLinear`.
    parameters = dict(encoder.named_parameters()) | dict(encoder.named_buffers())
    scores = torch.empty(groups[-1].stop)
    for group in groups:
        widths = (
            [head.vo for head in encoder.anatomy.layers[group.index].heads]
            if group.structure == "head"
            else []
        )
        scores[group.slice] = _norms(parameters, group, widths).cpu()
    for structure in {group.structure for group in groups}:
        alike = torch.cat([torch.arange(g.start, g.stop) for g in groups if g.structure == structure])
        scores[alike] /= scores[alike].mean().clamp(min=1e-12)
    return scores


def _norms(parameters: Mapping[str, Tensor], group: GateGroup, head_widths: Sequence[int]) -> Tensor:
    """Norms of one group, (gates,); `head_widths` are those of the values, for `head`."""
    if group.structure == "conv":
        return _row_norms(parameters[f"feature_extractor.conv_layers.{group.index}.conv.weight"].flatten(1))
    attention, feed_forward = f"layers.{group.index}.attention.", f"layers.{group.index}.feed_forward."
    if group.structure in ("intermediate", "feed_forward"):
        written = parameters[feed_forward + "output_dense.weight"]
        if group.structure == "feed_forward":
            return _row_norms(written.flatten()[None])
        return _row_norms(parameters[feed_forward + "intermediate_dense.weight"]) * _row_norms(written.T)
    if group.structure == "qk":
        queries, keys = parameters[attention + "q_proj.weight"], parameters[attention + "k_proj.weight"]
        return _row_norms(queries) * _row_norms(keys)
    written = parameters[attention + "out_proj.weight"]
    if group.structure == "attention":
        return _row_norms(written.flatten()[None])
    values = _row_norms(parameters[attention + "v_proj.weight"]) * _row_norms(written.T)
    if group.structure == "vo":
        return values
    return torch.stack([part.mean() for part in torch.split(values, list(head_widths))])


def _row_norms(matrix: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(matrix, dim=1)
    return norms
