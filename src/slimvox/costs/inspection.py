"""Contents of an encoder as plain data."""

from __future__ import annotations

from typing import Any

from slimvox.costs import BLOCK_KINDS, Macs, Parameters
from slimvox.costs.counted import SECONDS
from slimvox.structures import structure, structure_names
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.structures.units import units


def inspection(anatomy: EncoderAnatomy, dense: EncoderAnatomy) -> dict[str, Any]:
    """Sizes and costs of an encoder beside those of the dense one, as JSON types.

    Args:
        anatomy: anatomy of the encoder.
        dense: anatomy of the encoder it was pruned from; the same if it was not pruned.

    Returns:
        `parameters`, `parameters_dense`, `macs_10s`, `macs_10s_dense`; `blocks`, the costs of each kind of block;
        `layers`, for each Transformer layer its costs and by structure the numbers of units [kept, dense]; and
        `structures`, for each structure its `title`, `column`, `kind`, whether it is `per_layer`, and by index its
        `units` [kept, dense] and its `spans` (sizes of the spans that are left).
    """
    parameters, macs = Parameters(), Macs(SECONDS)
    by_block = {"parameters": parameters.by_block(anatomy), "macs_10s": macs.by_block(anatomy)}
    now, before = units(anatomy).sizes, units(dense).sizes
    layers: list[dict[str, Any]] = [
        {name: costs.layer(index) for name, costs in by_block.items()} for index in range(len(anatomy.layers))
    ]
    found: dict[str, Any] = {}
    for address in sorted(before, key=lambda each: structure_names().index(each.structure)):
        kind = structure(address.structure)
        entry = found.setdefault(
            address.structure,
            {
                "title": kind.title,
                "column": kind.column or kind.title,
                "kind": kind.kind,
                "per_layer": kind.per_layer,
                "units": {},
                "spans": {},
            },
        )
        pair = [now.get(address, 0), before[address]]
        entry["units"][str(address.index)] = pair
        entry["spans"][str(address.index)] = list(kind.spans(anatomy, address.index))
        if kind.per_layer:
            layers[address.index][address.structure] = pair
    return {
        "family": anatomy.family,
        "parameters": parameters.of(anatomy),
        "parameters_dense": parameters.of(dense),
        "macs_10s": macs.of(anatomy),
        "macs_10s_dense": macs.of(dense),
        "blocks": {
            kind: {name: costs.kind(kind) for name, costs in by_block.items()} for kind in BLOCK_KINDS
        },
        "layers": layers,
        "structures": found,
    }
