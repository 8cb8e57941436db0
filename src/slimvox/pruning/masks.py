"""Masks: scalings of rows or columns of weights, and nothing else.

The masked student runs the encoder on scaled weights; surgery scales the same weights and then slices the zeros away.
Therefore the two compute the same function.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.func import functional_call

from slimvox.encoder import EncoderOutput, HasEncoder
from slimvox.structures import Address, structure, structures
from slimvox.structures.anatomy import EncoderAnatomy

Masks = Mapping[Address, Tensor]
"""Mask of each address, (units,): 0 for a unit that is removed, otherwise the scale of a unit that stays. Addresses
without a mask are unchanged."""


def masks_of(sizes: Mapping[Address, int], values: Tensor) -> dict[Address, Tensor]:
    """Masks with the values of one vector.

    Args:
        sizes: number of units of each address, in the order of the vector.
        values: (sum of sizes,).
    """
    return dict(zip(sizes, torch.split(values, list(sizes.values())), strict=True))


def scale_parameters(
    parameters: Mapping[str, Tensor], masks: Masks, anatomy: EncoderAnatomy
) -> dict[str, Tensor]:
    """The parameters that the masks change, scaled; other parameters are not in the result.

    Args:
        parameters: the encoder's parameters by name.
        masks: factors. Gradients flow to parameters and masks.
        anatomy: anatomy of the encoder.
    """
    factors: dict[str, dict[int | None, Tensor]] = {}
    for address, mask in masks.items():
        for rows in structure(address.structure).scaled(anatomy, address.index):
            # A parameter of size 0 does not exist.
            if rows.parameter not in parameters:
                continue
            factor = mask if rows.repeats is None else _repeated(mask, rows.repeats)
            by_axis = factors.setdefault(rows.parameter, {})
            by_axis[rows.axis] = by_axis[rows.axis] * factor if rows.axis in by_axis else factor
    return {name: _scaled(parameters[name], by_axis) for name, by_axis in factors.items()}


def _repeated(mask: Tensor, repeats: tuple[int, ...]) -> Tensor:
    """Each value repeated as given by `repeats`."""
    return mask[_repeat_index(repeats, mask.device)]


@functools.lru_cache(maxsize=1024)
def _repeat_index(repeats: tuple[int, ...], device: torch.device) -> Tensor:
    places = itertools.chain.from_iterable([unit] * count for unit, count in enumerate(repeats))
    with torch.inference_mode(False):
        return torch.tensor(list(places), dtype=torch.long, device=device)


def _scaled(parameter: Tensor, by_axis: Mapping[int | None, Tensor]) -> Tensor:
    """A parameter times a vector along each axis; the factor of the whole first goes into one of the vectors."""
    vectors = {axis: factor for axis, factor in by_axis.items() if axis is not None}
    whole = by_axis.get(None)
    for axis, factor in vectors.items():
        if whole is not None:
            factor, whole = factor * whole, None
        parameter = parameter * factor.view(-1, *[1] * (parameter.dim() - axis - 1))
    return parameter if whole is None else parameter * whole


def masked_forward(
    encoder: HasEncoder, masks: Masks, waveforms: Tensor, mask: Tensor | None = None
) -> EncoderOutput:
    """Run an encoder under masks; arguments and result are those of `SpeechEncoder.forward`."""
    encoder = encoder.as_encoder()
    scaled = scale_parameters(dict(encoder.named_parameters()), masks, encoder.anatomy)
    arguments = {}
    for each in structures():
        arguments.update(each.forward_arguments(encoder.anatomy, masks))
    output: EncoderOutput = functional_call(encoder, scaled, (waveforms, mask), arguments)
    return output
