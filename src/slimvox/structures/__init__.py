"""Prunable structures, one file each; see `docs/extending/structure.md` for how to add one."""

from slimvox.structures.base import (
    Address,
    Block,
    Rows,
    Structure,
    Term,
    addresses,
    container,
    depth,
    register_structure,
    structure,
    structure_names,
    structures,
    unregister_structure,
)
from slimvox.structures.blocks import ATTENTION, FEED_FORWARD
from slimvox.structures.conv import ConvChannels
from slimvox.structures.head import AttentionHeads
from slimvox.structures.head_dimensions import QUERY_KEY, VALUE
from slimvox.structures.intermediate import FeedForwardDimensions
from slimvox.structures.position import PositionTaps

for _structure in (
    ConvChannels(),
    PositionTaps(),
    ATTENTION,
    AttentionHeads(),
    QUERY_KEY,
    VALUE,
    FEED_FORWARD,
    FeedForwardDimensions(),
):
    register_structure(_structure)

__all__ = [
    "Address",
    "Block",
    "Rows",
    "Structure",
    "Term",
    "addresses",
    "container",
    "depth",
    "register_structure",
    "structure",
    "structure_names",
    "structures",
    "unregister_structure",
]
