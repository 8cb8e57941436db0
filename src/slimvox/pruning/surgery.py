"""Surgery: fold the masks into the weights, then slice the zeros away.

The law: for any masks, the sliced encoder computes the same function as the masked one, and has exactly the parameters
that its anatomy counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from slimvox.encoder import HasEncoder, SpeechEncoder
from slimvox.pruning.masks import Masks, scale_parameters
from slimvox.structures import structure
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.structures.kept_indices import KeptIndices
from slimvox.structures.units import units


@dataclass(frozen=True, kw_only=True)
class SlicedEncoder:
    """The result of surgery."""

    encoder: SpeechEncoder
    """The smaller encoder."""
    kept: KeptIndices
    """Kept units, in the numbering of the original encoder."""


def survivors(anatomy: EncoderAnatomy, masks: Masks) -> KeptIndices:
    """The units of an encoder that masks keep: those that are not zero and still reach the output.

    Raises:
        ValueError: if fewer units of an address would be left than `Structure.min_kept`.
    """
    table = units(anatomy)
    open_units = np.ones(len(table), dtype=bool)
    for address, mask in masks.items():
        open_units[table.part(address)] = (mask.detach() != 0).cpu().numpy()
    kept = KeptIndices.of(anatomy, table.left(open_units))
    for address in table.addresses:
        each = structure(address.structure)
        if len(kept[address]) < each.min_kept:
            raise ValueError(
                f"at least {each.min_kept} of the {each.title} at index {address.index} must be kept,"
                f" but the masks keep {len(kept[address])}"
            )
    return kept


@torch.no_grad()
def slice_encoder(encoder: HasEncoder, masks: Masks) -> SlicedEncoder:
    """Cut an encoder down to the units that the masks keep.

    Args:
        encoder: encoder to cut; it is not changed.
        masks: masks on the encoder's device; surviving values are folded into the weights.

    Raises:
        ValueError: if fewer units of an address would be left than `Structure.min_kept`.
    """
    encoder = encoder.as_encoder()
    anatomy = encoder.anatomy
    kept = survivors(anatomy, masks)
    smaller = SpeechEncoder(kept.anatomy(anatomy), encoder.dense_anatomy)
    remaining = dict(smaller.named_parameters())
    parameters: dict[str, Tensor] = dict(encoder.named_parameters())
    parameters.update(scale_parameters(parameters, masks, anatomy))
    for address, indices in kept.units.items():
        index = torch.tensor(indices, dtype=torch.long)
        for rows in structure(address.structure).cut(anatomy, address.index):
            if rows.parameter in remaining:
                assert rows.axis is not None
                parameter = parameters[rows.parameter]
                parameters[rows.parameter] = parameter.index_select(rows.axis, index.to(parameter.device))
    like = next(encoder.parameters())
    smaller = smaller.to(device=like.device, dtype=like.dtype)
    # Tables that are stored but are not parameters do not change.
    fixed = {name: tensor for name, tensor in encoder.state_dict().items() if name not in parameters}
    smaller.load_state_dict({**fixed, **{name: parameters[name] for name in remaining}})
    return SlicedEncoder(encoder=smaller.train(encoder.training), kept=kept)
